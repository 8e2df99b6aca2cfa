// How many rows go with a request, and how many requests run at a time.

import type { Capabilities } from "../results/modelInfo.js";
import type { TokenizerInfo } from "../results/tokenizer.js";

const TEXT_CALLS = 4;
/** Tokens of a request, and on their way at a time, where the model computes all of them at once. */
const PART_TOKENS = 4096;
const FLYING_TOKENS = 4 * PART_TOKENS;

/** What one service takes of a call with many rows. */
export interface RowLimits {
  /** Rows up to which a call is not cut. */
  readonly whole: number;
  /** Rows of a request of a call that is. */
  readonly part: number;
  /** Largest request, in bytes. */
  readonly requestBytes: number;
  /** Rows on their way at a time. */
  readonly atOnce: number;
}

/** Returns the limits of a tokenizer service: a few calls keep its threads busy. */
export function textLimits({ maxItems, maxMessageBytes }: TokenizerInfo): RowLimits {
  return { whole: maxItems, part: maxItems, requestBytes: maxMessageBytes, atOnce: TEXT_CALLS * maxItems };
}

/**
 * Returns the limits of a model service.
 *
 * One and a half times as many sequences as run in a step are on their way: the next ones wait at
 * the service when places become free, and other callers find places too. A part is a quarter of
 * a step, so that the end of its longest sequence holds up few.
 */
export function sequenceLimits(capabilities: Capabilities, sequencesPerRow = 1): RowLimits {
  const { maxRunningSequences = 1, maxSequencesPerCall = 1, maxRequestBytes = 0 } = capabilities.limits;
  const flying = Math.min(Math.floor(maxRunningSequences * 1.5), admitted(capabilities));
  const part = Math.min(Math.floor(maxRunningSequences / 4), maxSequencesPerCall);
  const rows = (sequences: number) => Math.max(Math.floor(sequences / sequencesPerRow), 1);
  return {
    whole: rows(maxSequencesPerCall),
    part: rows(part),
    requestBytes: maxRequestBytes,
    atOnce: rows(flying),
  };
}

/**
 * Returns the limits for rows of so many tokens that are computed as a whole. Long rows go with
 * fewer in a request, and fewer at a time, so that each request ends within its limit.
 */
export function ofLength(limits: RowLimits, numTokens: number): RowLimits {
  const rowsOf = (tokens: number) => Math.floor(tokens / Math.max(numTokens, 1));
  const rows = Math.max(rowsOf(PART_TOKENS), 1);
  const part = Math.min(limits.part, rows);
  return {
    whole: Math.min(limits.whole, rows),
    part,
    requestBytes: limits.requestBytes,
    atOnce: Math.min(limits.atOnce, Math.max(rowsOf(FLYING_TOKENS), part)),
  };
}

/** Returns how many sequences a model service runs and lets wait. */
export function admitted({ limits }: Capabilities): number {
  return (limits["maxRunningSequences"] ?? 1) + (limits["maxWaitingSequences"] ?? 0);
}
