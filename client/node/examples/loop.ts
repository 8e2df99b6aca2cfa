// Chooses every token itself: the model's distribution comes in, a token id goes out.
//
//   node dist/examples/loop.js "The river"

import { Lockstep } from "../src/index.js";

const ls = new Lockstep({
  tokenizer: process.env["LOCKSTEP_TOKENIZER"],
  model: process.env["LOCKSTEP_MODEL"],
});

try {
  const prompt = process.argv[2] ?? "The river";
  await using session = await ls.model.openSession(await ls.tokenizer.encode(prompt));
  const chosen: number[] = [];
  while (chosen.length < 8) {
    const row = session.logits!.row(0); // a Float32Array, one number per id
    const id = row.indexOf(row.reduce((largest, each) => Math.max(largest, each)));
    chosen.push(id);
    await session.step([id]);
  }
  console.log(prompt + (await ls.tokenizer.decode(chosen)));
} finally {
  ls.close();
}
