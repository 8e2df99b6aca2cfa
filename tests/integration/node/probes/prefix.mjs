// Sends prompts to a peer that keeps what each call says of how its prompt begins.

import { connect, failure, lockstep, print } from "./probe.mjs";
import { emptyPeer } from "./peer.mjs";

const NUM_TOKENS = 64;
const long = Array.from({ length: NUM_TOKENS }, (_, id) => id);
const mask = [0, ...long.map(() => 1)];

const seen = {};
let call;
const peer = await emptyPeer((headers) => (seen[call] = headers["x-lockstep-prefix"] ?? null));
const options = { model: peer.address, tokenizer: peer.address, retries: 0 };
const [client, silent] = [connect(options), connect({ ...options, prefixRouting: false })];
const tensor = (rows) => new lockstep.Tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);
const padded = new lockstep.Batch(
  [],
  undefined,
  new lockstep.Padded(tensor([[0, ...long], [1, ...long]]), tensor([mask, mask]), tensor([mask, mask]), "left", 0),
);
const calls = {
  generate: () => client.model.generate([[...long, 7]]),
  others: () => client.model.generate([[...long, 8], [9]], { keepSession: true }),
  moved: () => client.model.generate([[1, ...long]]),
  salted: () => client.model.generate([long], { cacheSalt: "mine" }),
  short: () => client.model.generate([long.slice(1)]),
  stream: () => client.model.stream([long]).next(),
  padded: () => client.model.computeLogits(padded),
  score: () => client.model.score([long]),
  openSession: () => client.model.openSession([long]),
  validate: () => client.model.validate([long]),
  info: () => client.model.info(),
  silent: () => silent.model.computeLogits([long]),
};
for (const [name, make] of Object.entries(calls)) {
  call = name;
  await failure(make);
}
print(seen);
client.close();
silent.close();
peer.close();
