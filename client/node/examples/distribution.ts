// Shows what may come next after a text before and after every processor, and how well the model
// predicts the text itself.
//
//   node dist/examples/distribution.js "The capital of France is"

import { Lockstep } from "../src/index.js";

const ls = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"],
  model: process.env["LOCKSTEP_MODEL"],
});

try {
  const text = process.argv[2] ?? "The capital of France is";
  const seen = await ls.distribution(text, { candidates: 3, doSample: true, temperature: 0.7, topP: 0.9 });
  console.log(String(seen));
  console.log(`perplexity ${(await ls.perplexity(text)).toFixed(2)}`);
} finally {
  ls.close();
}
