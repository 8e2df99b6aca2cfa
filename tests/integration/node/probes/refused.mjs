// Calls a peer that refuses calls without having looked at them, before it takes one.

import { all, connect, failure, print } from "./probe.mjs";
import { emptyPeer } from "./peer.mjs";

const REFUSALS = Number(process.env.REFUSALS);

let numCalls = 0;
const peer = await emptyPeer(() => (numCalls += 1) % (REFUSALS + 1) === 0);
const retries = Number(process.env.RETRIES);
const client = connect({ tokenizer: peer.address, model: peer.address, retries });
const encode = await failure(() => client.tokenizer.encode("x"));
const openSession = await failure(() => client.model.openSession([[5]]));
const vocabulary = await failure(() => all(client.tokenizer.vocabulary()));
print({ encode, openSession, vocabulary, numCalls });
client.close();
peer.close();
