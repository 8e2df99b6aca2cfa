// Makes calls with more rows than one request may have.

import { connect, failure, lockstep, print } from "./probe.mjs";

const COUNT = Number(process.env.COUNT);
const WRONG = 70;
const DRAWN = { maxNewTokens: 4, doSample: true, seed: 7 };
const GREEDY = { maxNewTokens: 2, doSample: false };

const client = connect();
const { tokenizer, model } = client;

const texts = Array.from({ length: COUNT }, (_, row) => `text ${row} ${"abc ".repeat(row % 7)}`);
const seen = [];
const progress = (numDone, numRows) => seen.push([numDone, numRows]);
const rows = Array.from({ length: COUNT }, (_, row) => [5, row % 300]);
const wrong = rows.map((row, index) => (index === WRONG ? [5, 100_000] : row));
const isError = (each) => each instanceof lockstep.LockstepError;
const failed = (list) => list.flatMap((each, row) => (isError(each) ? [[row, each.reason, each.message]] : []));

const batch = await tokenizer.encode(texts, { padding: "longest", progress });
const drawn = await model.generate(batch, DRAWN);
const completions = await client.generate(texts, DRAWN);
const scored = await model.score(batch);
const good = await model.generate(rows, GREEDY);
const rest = await model.generate(wrong, { ...GREEDY, errors: "return" });
const blank = texts.map((text, row) => (row === WRONG ? "x".repeat(2_000_000) : text));
const partly = await tokenizer.encode(blank, { padding: "longest", errors: "return" });
const long = ["abc", "x".repeat(3000), "abc"]; // the second is longer than the context
const alone = await client.generate("abc", GREEDY);
const conversations = [0, 1].map((n) => [{ role: "user", content: `abc ${n}` }]);
const one = await model.capabilities().then(({ limits }) => Math.ceil(limits.maxResponseBytes / (250 * 320 * 4)));
const large = await model.score(Array(one + 1).fill(Array(250).fill(5)), undefined, { outputLogits: true });

// What one client has on its way is what the service admits.
const { LOCKSTEP_TOKENIZER, LOCKSTEP_MODEL } = process.env;
const once = new lockstep.Lockstep({ tokenizer: LOCKSTEP_TOKENIZER, model: LOCKSTEP_MODEL, retries: 0 });
const sixty = Array(60).fill([5]);
const together = { maxNewTokens: 8, eosTokenId: [] };
await Promise.all(Array.from({ length: 3 }, () => once.model.generate(sixty, together)));
once.close();

print({
  batch: { tokenIds: batch.tokenIds, padded: batch.padded },
  seen,
  counts: await tokenizer.countTokens(texts),
  decoded: await tokenizer.decode(batch),
  manyBytes: new Set(await tokenizer.countTokens(Array(40).fill("x ".repeat(120_000)))).size,
  drawn: {
    promptIndices: drawn.details.map((each) => each.promptIndex),
    sequences: drawn.sequences,
    fullSequences: drawn.fullSequences,
    seeds: drawn.seeds.map(String),
    completionTokenCount: drawn.usage.completionTokenCount,
  },
  completions: completions.map(({ text, tokenIds, seed }) => ({ text, tokenIds, seed: String(seed) })),
  scored: scored.map((row) => row.logitsLogprob),
  ragged: (await model.generate(batch.tokenIds, GREEDY)).sequences,
  padded: (await model.generate(batch, GREEDY)).sequences,
  wrong: {
    decode: await failure(() => tokenizer.decode(wrong)),
    score: await failure(() => model.score(wrong)),
    generate: await failure(() => model.generate(wrong, GREEDY)),
  },
  returned: {
    decode: failed(await tokenizer.decode(wrong, { errors: "return" })),
    score: failed(await model.score(wrong, undefined, { errors: "return" })),
    generate: failed(rest.details.map((each) => each.error)),
  },
  others: [good.sequences.toSpliced(WRONG, 1, []), rest.sequences],
  partly: {
    empty: partly.tokenIds.flatMap((row, index) => (row.length === 0 ? [index] : [])),
    errors: failed([...partly.errors].map(([, error]) => error)).length,
    errorRows: [...partly.errors.keys()],
    mask: partly.attentionMask.row(WRONG).every((each) => each === 0n),
    shape: partly.inputIds.shape,
  },
  long: (await client.generate(long, { ...GREEDY, errors: "return" })).map((each) => each.reason ?? each.text),
  tooLong: await failure(() => client.generate(long, GREEDY)),
  alone: [alone.text, ...(await client.generate(["abc"], GREEDY)).map((each) => each.text)],
  none: await client.generate([], GREEDY),
  answers: (await client.generate(conversations, GREEDY)).map((each) => each.tokenIds),
  late: await failure(() =>
    model.generate(Array(300).fill([5]), { maxNewTokens: 250, eosTokenId: [], timeoutMs: 500 }),
  ),
  left: await failure(() =>
    model.generate(rows, { maxNewTokens: 250, eosTokenId: [], signal: AbortSignal.timeout(50) }),
  ),
  errors: await failure(() => model.score(rows, undefined, { errors: "ignore" })),
  concurrency: await failure(() => model.score(rows, undefined, { concurrency: 0 })),
  large: {
    count: large.length,
    expected: one + 1,
    equal: large.slice(0, 3).every(({ scores }) => scores[0].logits.every((x, i) => x === large[0].scores[0].logits[i])),
  },
});
client.close();
