// Continues a text, piece by piece.
//
//   node dist/examples/capital.js "The capital of France is"

import { Lockstep, LockstepError } from "../src/index.js";

const ls = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"],
  model: process.env["LOCKSTEP_MODEL"],
});

try {
  const prompt = process.argv[2] ?? "The capital of France is";
  const pieces = ls.stream(prompt, { maxNewTokens: 16, doSample: false });
  for await (const piece of pieces) process.stdout.write(piece);
  const { tokenIds, finishReason } = pieces.result;
  console.log(`\n[${tokenIds.length} tokens, ${finishReason}]`);
} catch (error) {
  if (!(error instanceof LockstepError)) throw error;
  console.error(`${error.reason || error.name}: ${error.message}`);
  process.exitCode = 1;
} finally {
  ls.close();
}
