// Shows distributions before and after every processor, and scores in windows.

import { connect, failure, lockstep, print } from "./probe.mjs";

const { PROMPTS, KEYWORDS, GIVEN, TEXT } = JSON.parse(process.env.GIVEN);
const WINDOW = 32;

const client = connect();
const { model } = client;
const shown = ({ tokenIds, texts, stages, scores, logsumexp, probabilities, position }) => ({
  tokenIds, texts, stages, logsumexp, probabilities, position,
  scores: scores.map((row) => Array.from(row, String)), // -Infinity is no number of JSON
});

const text = await client.distribution("The capital of", { candidates: 3, doSample: true, topK: 2 });
const { tokenIds } = await client.tokenizer.encode(TEXT);
const windows = await model.score(tokenIds, undefined, { window: WINDOW });
const [{ scores }] = windows;
const wrong = await model.score([...tokenIds, [5, 100_000]], undefined, { window: WINDOW, errors: "return" });

print({
  stages: (await model.distribution(PROMPTS, { candidates: 8, ...KEYWORDS })).map(shown),
  given: (await model.distribution(PROMPTS, { candidates: GIVEN, ...KEYWORDS })).map(shown),
  unset: (await model.distribution(PROMPTS)).map(shown),
  generated: (await model.generate(PROMPTS, { maxNewTokens: 1, doSample: false })).sequences,
  text: { ...shown(text), table: String(text) },
  asked: (await client.distribution([{ role: "user", content: "Hi" }])).position,
  guided: await failure(() => client.distribution("a", { negativePrompt: "b", guidanceScale: 2 })),
  perplexity: await client.perplexity(TEXT, { window: WINDOW }),
  several: await client.perplexity([TEXT, TEXT.slice(0, 20)], { window: WINDOW, stride: 8 }),
  whole: await client.perplexity(TEXT),
  windows: {
    positions: scores.map(({ position }) => position),
    logprob: windows[0].logitsLogprob,
    sum: scores.reduce((sum, each) => sum + each.logitsLogprob, 0),
    perplexity: windows[0].perplexity,
  },
  continued: (await model.score([tokenIds[0].slice(0, 40)], [tokenIds[0].slice(40)], { window: WINDOW })).map(
    (row) => [row.scores.length, row.scores[0].position],
  ),
  wrong: wrong.map((row) => (row instanceof lockstep.LockstepError ? row.message : row.scores.length)),
  refused: {
    candidates: await failure(() => model.distribution(PROMPTS, { candidates: 0 })),
    ids: await failure(() => model.distribution(PROMPTS, { candidates: [1.5] })),
    option: await failure(() => model.distribution(PROMPTS, { outputLogits: true })),
    window: await failure(() => model.score(PROMPTS, undefined, { window: 1 })),
    stride: await failure(() => model.score(PROMPTS, undefined, { window: 8, stride: 8 })),
    alone: await failure(() => model.score(PROMPTS, undefined, { stride: 8 })),
    number: await failure(() => model.score(PROMPTS, undefined, { window: 1.5 })),
    texts: await failure(() => client.distribution(["a", "b"])),
  },
});
client.close();
