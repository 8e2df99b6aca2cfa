// The rows of prompts, in whichever form a request has them.

import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import type { Tensor__Output } from "../schema/lockstep/v1/Tensor.js";
import { readInts } from "./tensor.js";

/** Yields the ids of each prompt of a request of this client, without padding. */
export function* promptRows(prompt: PromptBatch | null | undefined): Generator<number[]> {
  const { inputIds, attentionMask } = prompt?.paddedBatch ?? {};
  if (!inputIds || !attentionMask) {
    for (const { ids = [] } of prompt?.tokenBatch?.sequences ?? []) yield Array.from(ids as readonly number[]);
    return;
  }
  const [ids, mask] = [readInts(inputIds as Tensor__Output), readInts(attentionMask as Tensor__Output)];
  for (let row = 0; row < ids.shape[0]!; row++) {
    const kept = mask.row(row);
    yield Array.from(ids.row(row), Number).filter((_, column) => kept[column] === 1n);
  }
}
