// Answers a question with the model's chat template.
//
//   node dist/examples/chat.js "What is the capital of France?"

import { Lockstep, type ChatMessage } from "../src/index.js";

const ls = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"],
  model: process.env["LOCKSTEP_MODEL"],
});

try {
  const content = process.argv[2] ?? "What is the capital of France?";
  const messages: ChatMessage[] = [{ role: "user", content }];
  const answer = await ls.generate(messages, { maxNewTokens: 64, doSample: false });
  console.log(answer.text);
} finally {
  ls.close();
}
