// Grows the vocabulary of a tokenizer service of its own.

import { all, connect, failure, print } from "./probe.mjs";

const client = connect();
const { tokenizer, vocabulary, model } = client;

const text = "call <tool> now";
const before = await tokenizer.encode(text, { parseSpecialTokens: true });
const dry = await vocabulary.addTokens(["<tool>"], { special: true, dryRun: true, texts: [text] });
const afterDryRun = await failure(() => model.computeLogits([[5]]));

const watching = new AbortController();
const watched = vocabulary.watch({ signal: watching.signal });
const first = watched.next();
const width = Number(process.env.WIDTH);
const added = await vocabulary.addTokens([
  { content: "<tool>", special: true, role: "sep", inputValues: Array(width).fill(0.5), outputValues: new Float32Array(width) },
  { content: "<copy>", special: true, initialization: "copy", copyTokenId: 5 },
]);
const seen = (await first).value;
watching.abort();
const id = added.ids[0];

const roles = await vocabulary.setSpecialTokens({ pad: added.ids[1] });
const archive = await all(vocabulary.exportRevisions());
print({
  before: before.tokenIds,
  dry: { ids: dry.ids, revision: dry.vocabulary.revision, effects: dry.textEffects },
  afterDryRun,
  added: { ids: added.ids, vocabulary: added.vocabulary, tokens: added.tokens },
  seen,
  after: (await tokenizer.encode(text, { parseSpecialTokens: true })).tokenIds,
  decoded: await tokenizer.decode([id], { skipSpecialTokens: false }),
  bareIds: await failure(() => model.computeLogits([[id]], { timeoutMs: 2_000 })),
  roles,
  revisions: await all(vocabulary.revisions()),
  verified: await vocabulary.verify(),
  imported: await vocabulary.importRevisions(archive),
  exists: await failure(() => vocabulary.addTokens([{ content: "<tool>", special: false }])),
  conflict: await failure(() => vocabulary.addTokens(["<x>"], { special: true, expectedRevision: 0 })),
  role: await failure(() => vocabulary.setSpecialTokens({ padd: 1 })),
});
client.close();
