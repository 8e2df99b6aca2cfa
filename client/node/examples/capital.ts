// Continues a text, token by token.
//
//   npm ci && npm run build && npm run example "The capital of France is"

import { Lockstep, LockstepError } from "../src/index.js";

const client = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"] ?? "localhost:50051",
  model: process.env["LOCKSTEP_MODEL"] ?? "localhost:50052",
});

try {
  const prompt = await client.encode([process.argv[2] ?? "The capital of France is"]);
  const ids: number[] = [];
  for await (const event of client.generateStream(prompt, { maxNewTokens: 16, doSample: false })) {
    if ("id" in event) ids.push(event.id);
    else console.error(`${event.finishReason} after ${ids.length} tokens`);
  }
  console.log(...(await client.decode([ids])));
} catch (error) {
  if (!(error instanceof LockstepError)) throw error;
  console.error(`${error.reason || error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
