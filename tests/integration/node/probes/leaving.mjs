// Keeps calling while one replica shuts down and another behind the same address serves. Says when
// its session and its stream have begun, and waits for a line.

import { createInterface } from "node:readline/promises";

import { all, connect, failure, print } from "./probe.mjs";

const OLD_MS = 1_100; // a client whose connection is older dials again

const client = connect();
const { model } = client;
const replica = (session) => Buffer.from(session.sessionToken, "base64").toString();
const generate = async () => (await model.generate([[5]], { maxNewTokens: 1 })).sequences;

const moving = await model.openSession([[5]], { reopen: true });
const streaming = await model.openSession([[5]], { reopen: true });
const staying = await model.openSession([[5]]);
const steps = streaming.stepStream();
await moving.step([6]);
await steps.step([6]);
const before = (await staying.step([6])).drainS ?? null;
const stream = model.stream([[5]], { maxNewTokens: 200, eosTokenId: [] });
const first = await stream.next();
await new Promise((old) => setTimeout(old, OLD_MS));
const lines = createInterface({ input: process.stdin });
console.log("open");
await new Promise((come) => lines.once("line", come));
lines.close();

const told = [(await moving.step([7])).drainS, (await steps.step([7])).drainS, (await staying.step([7])).drainS];
const generated = [await generate(), await generate(), await generate()];
const deltas = [first.value, ...(await all(stream))];
const largest = ({ rows }) => rows[0][0].logits.indexOf(Math.max(...rows[0][0].logits));
const moved = [largest(await moving.step([8])), largest(await steps.step([8]))];
const stayed = replica(staying);
const tokenIds = [await moving.tokenIds(), await streaming.tokenIds(), await staying.tokenIds()];
steps.close();
const failures = [];
for (const session of [moving, streaming, staying]) failures.push(await failure(() => session.close()));
print({
  before,
  generated,
  streamed: deltas.flatMap(({ tokenIds: ids }) => ids).length,
  told,
  moved,
  places: [replica(moving), replica(streaming), stayed],
  tokenIds,
  failures,
});
client.close();
