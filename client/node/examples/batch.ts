// Continues every line of a file, prints the answers as lines of JSON, and shows how far it is.
//
//   node dist/examples/batch.js prompts.txt > answers.jsonl

import { readFileSync } from "node:fs";

import { Lockstep, LockstepError } from "../src/index.js";

const ls = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"],
  model: process.env["LOCKSTEP_MODEL"],
});

const prompts = readFileSync(process.argv[2] ?? "/dev/stdin", "utf8").split("\n").filter(Boolean);
const answers = await ls.generate(prompts, {
  maxNewTokens: 16,
  doSample: false,
  errors: "return", // one bad line costs no other its answer
  progress: (numDone, numRows) => void process.stderr.write(`\r${numDone}/${numRows}`),
});
process.stderr.write("\n");
answers.forEach((answer, row) => {
  const said = answer instanceof LockstepError ? { error: answer.message } : { text: answer.text };
  console.log(JSON.stringify({ prompt: prompts[row], ...said }));
});
ls.close();
