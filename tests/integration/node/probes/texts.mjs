// Encodes, pads, decodes, renders, generates and scores.

import { all, connect, failure, lockstep, print } from "./probe.mjs";

const TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"];
const GREEDY = { maxNewTokens: 12, doSample: false, eosTokenId: [] };
const SAMPLING = { maxNewTokens: 12, doSample: true, temperature: 1.5, topK: 0, seed: 11 };
const MESSAGES = [{ role: "user", content: "Say hello." }];

const client = connect();
const { tokenizer, model } = client;

const batch = await tokenizer.encode(TEXTS, {
  padding: "longest",
  padToMultipleOf: 8,
  returnOffsets: "utf16",
  returnTokens: true,
});
const equal = new lockstep.Batch([[5, 6], [7, 8]], batch.vocabulary);
const right = await tokenizer.pad(batch, { paddingSide: "right" });
const chat = await tokenizer.applyChatTemplate(MESSAGES);
const greedy = await model.generate(batch, { ...GREEDY, outputLogits: true, outputScores: true });
const sampled = await model.generate(batch, SAMPLING);
const streamed = model.stream(batch, GREEDY);
const deltas = await all(streamed);

// Two characters of several bytes, each in several ids.
const forcedPrefix = (await tokenizer.encode("🙂東", { addSpecialTokens: false })).tokenIds[0];
const pieces = client.stream("x", { forcedPrefix, maxNewTokens: forcedPrefix.length });
const text = await all(pieces);

const distributions = {};
for (const dtype of ["float32", "float16", "bfloat16"]) {
  const { logits } = await model.computeLogits(batch, { selection: { logits: true, full: true, dtype } });
  distributions[dtype] = { shape: logits.shape, first: logits.row(0) };
}

const words = { outputLogits: true, outputScores: true, processorTrace: true };
const full = (position) => [position?.logits?.length, position?.scores?.length].map((n) => n ?? 0);
const session = await model.openSession(batch, words);
const opened = full(session.rows[0][0]);
const step = await session.step([1, 2], { outputScores: true, outputLogits: false });
await session.close();
const traced = await model.generate(batch, { ...GREEDY, repetitionPenalty: 1.2, processorTrace: true });

print({
  words: {
    computed: await model.computeLogits(batch, words).then(({ logits, scores }) => [logits.shape, scores.shape]),
    scored: (await model.score(batch, [[1], [2]], { outputLogits: true })).map((row) => full(row.scores[0])),
    opened: [opened, full(step.rows[0][0])],
    traced: traced.details[0].scores[0].processorTrace.length,
    both: await failure(() => model.score(batch, undefined, { outputLogits: true, selection: {} })),
  },
  batch,
  right,
  equal: {
    inputIds: equal.inputIds,
    attentionMask: equal.attentionMask,
    positionIds: equal.positionIds,
  },
  extended: batch.extended([[7], [8, 9]]),
  decoded: await tokenizer.decode(batch),
  decodedRow: await tokenizer.decode(batch.tokenIds[1]),
  decodedRows: await tokenizer.decodeRows(batch, { checkRoundTrip: true }),
  decodedStream: (await all(tokenizer.decodeStream(batch.tokenIds[1]))).join(""),
  chat: { tokenIds: chat.tokenIds, texts: chat.texts },
  greedy: {
    sequences: greedy.sequences,
    fullSequences: greedy.fullSequences,
    finishReasons: greedy.finishReasons,
    logits: { shape: greedy.logits.shape, last: greedy.logits.row(1, 11) },
    scores: greedy.scores.shape,
  },
  sampled: { sequences: sampled.sequences, seeds: sampled.seeds.map(String) },
  again: (await model.generate(batch, sampled.effectiveConfig)).sequences,
  streamed: { deltas, sequences: streamed.result.sequences },
  pieces: text,
  forced: { ids: forcedPrefix, completion: pieces.result, asText: `${pieces.result}` },
  answer: await client.generate(MESSAGES, { maxNewTokens: 8 }),
  stopped: await client.generate(TEXTS[0], { maxNewTokens: 8, stopTokenIds: greedy.sequences[0][1] }),
  scored: await model.score(batch, [[1, 2], [3]], { selection: { rank: true, topK: 2, logits: true } }),
  distributions,
  counts: await tokenizer.countTokens(TEXTS),
  converted: await tokenizer.convertTokens(["a", "nowhere"], [5]),
  entries: (await all(tokenizer.vocabulary({ startId: 300 }))).map((entry) => entry.id),
  artifact: (await tokenizer.artifact()).subarray(0, 2).toString(),
  tokenizerInfo: await tokenizer.info(),
  modelInfo: await model.info(),
  load: await model.load(),
  capabilities: await model.capabilities(),
  processors: await model.logitsProcessors(),
  plan: await model.validate(batch, GREEDY),
});
client.close();
