// Drives sessions.

import { all, connect, failure, print } from "./probe.mjs";

const PROMPTS = [[5, 6, 7], [8, 9]];

const client = connect();
const { model } = client;
const largest = (row) => row.indexOf(Math.max(...row));
const choose = ({ logits }) => logits.shape.slice(0, 1).flatMap((rows) =>
  Array.from({ length: rows }, (_, row) => largest(logits.row(row))),
);

async function loop(session, step) {
  const chosen = PROMPTS.map(() => []);
  for (let index = 0; index < 6; index++) {
    const ids = choose(session);
    ids.forEach((id, row) => chosen[row].push(id));
    await step(ids);
  }
  return chosen;
}

const session = await model.openSession(PROMPTS);
const chosen = await loop(session, (ids) => session.step(ids));
const stepped = { chosen, position: session.position, tokenIds: await session.tokenIds() };

await session.truncate([3, 2]);
const unknown = session.logits ?? null;
await session.truncate([2, 1]);
await session.step([[7], [9]]);
const stream = session.stepStream();
const overStream = await loop(session, (ids) => stream.step(ids));
stream.close();

const before = session.position;
await session.lookAhead([1, 2]);
const fork = await session.fork([1, 1, 0]);
const copied = { position: fork.position, tokenIds: await fork.tokenIds() };
await fork.selectRows([2]);
const selected = { position: fork.position, tokenIds: await fork.tokenIds() };
await session.step([[], [4]]);
const alone = session.position;

const generated = await fork.generate({ maxNewTokens: 4, doSample: false, eosTokenId: [] });
const after = fork.position;
for await (const _ of fork.stream({ maxNewTokens: 150, eosTokenId: [] })) break;
await fork.step([3]);
const undone = fork.position;
const { sampledTokenIds } = await fork.step([4], { sample: true, append: true, selection: {} });
await fork.rebind();
await fork.touch({ ttlS: 30 });

const found = await model.getSession(fork.sessionId);
const kept = await model.generate([[5, 6]], { maxNewTokens: 3, keepSession: { ttlS: 20 } });
const continued = await model.getSession(kept.sessionId);
await session.close();
const closedTwice = await failure(() => session.close());
const gone = await failure(() => session.step([1, 1]));
await fork[Symbol.asyncDispose]();
await continued.close();

print({
  stepped,
  unknown,
  overStream,
  before,
  copied,
  selected,
  alone,
  generated: {
    sequences: generated.sequences,
    after,
    full: await failure(() => generated.fullSequences),
  },
  undone,
  sampled: { ids: sampledTokenIds, position: fork.position },
  found: found.position,
  continued: continued.position,
  closedTwice,
  gone,
  load: await model.load(),
});
client.close();
