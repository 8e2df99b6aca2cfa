// Steps a session whose service goes, and comes back without it. Says when it is open, and waits
// for a line before it steps.

import { createInterface } from "node:readline/promises";

import { connect, failure, print } from "./probe.mjs";

const client = connect();
const session = await client.model.openSession([[5]], { reopen: true });
await session.step([6]);
const lines = createInterface({ input: process.stdin });
console.log("open");
await new Promise((come) => lines.once("line", come));
lines.close();
const late = await failure(() => session.step([7], { timeoutMs: 500 }));
await session.step([7]);
const { shape } = session.logits;
print({ late, tokenIds: await session.tokenIds(), shape });
client.close();
