// Drives sessions of two replicas: `ONE` has them, `TWO` is asked.

import { all, failure, lockstep, print } from "./probe.mjs";

const { ONE, TWO } = process.env;
const connect = (model, options = {}) => new lockstep.Lockstep({ model, ...options });
const [there, here, home] = [connect(ONE), connect(TWO), connect(TWO, { follow: false })];
const largest = ({ rows }) => rows[0][0].logits.indexOf(Math.max(...rows[0][0].logits));

const session = await there.model.openSession([[5]]);
const found = () => here.model.getSession(session.sessionId);
const stepped = [largest(await (await found()).step([6]))];
const stream = (await found()).stepStream();
stepped.push(largest(await stream.step([7])));
stream.close();
const { sequences } = await (await found()).generate({ maxNewTokens: 2 });
const deltas = await all((await found()).stream({ maxNewTokens: 1 }));
const fork = await (await found()).fork();
stepped.push(largest(await fork.step([11])));
await fork.close();
const forbidden = await failure(() => home.model.getSession(session.sessionId));

// The server forgets a session behind the back of its client.
const lose = async ({ sessionId }) => (await here.model.getSession(sessionId)).close();
const kept = await here.model.openSession([[5]], { reopen: true, doSample: true, seed: 3 });
await kept.step([6]);
const { seeds } = kept;
await lose(kept);
const over = kept.stepStream();
const reopened = [largest(await over.step([7]))];
over.close();
await lose(kept);
reopened.push((await kept.generate({ maxNewTokens: 2 })).sequences[0]);
await lose(kept);
reopened.push((await all(kept.stream({ maxNewTokens: 1 })))[0].tokenIds);
await lose(kept);
const tokenIds = await kept.tokenIds();
const sameSeeds = String(seeds) === String((await here.model.getSession(kept.sessionId)).seeds);
await lose(kept);
await kept.close();

const lost = await here.model.openSession([[5]]);
await lost.step([6]);
await lose(lost);
const gone = await failure(() => lost.step([7]));
await lost.reopen();
reopened.push(largest(await lost.step([7])));
await lost.close();

await session.close();
for (const client of [there, here, home]) client.close();

print({
  token: Buffer.from(session.sessionToken, "base64").toString(),
  stepped,
  sequences,
  streamed: deltas.map(({ tokenIds: ids }) => ids),
  forbidden,
  reopened,
  tokenIds,
  sameSeeds,
  gone,
});
