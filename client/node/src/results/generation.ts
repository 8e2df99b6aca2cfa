// Results of a generation. B is the number of sequences (prompts times sequences per prompt), T
// the length of the longest one, V the size of the vocabulary.

import type { LockstepError } from "../errors.js";
import type { GenerationOptions } from "../options.js";
import type { FinishReason__Output } from "../schema/lockstep/v1/FinishReason.js";
import type { Timing__Output } from "../schema/lockstep/v1/Timing.js";
import type { Usage__Output } from "../schema/lockstep/v1/Usage.js";
import { seconds } from "../values/durations.js";
import { short, type Short } from "../values/enums.js";
import { stackSequences, type Tensor } from "../values/tensor.js";
import type { VocabularyRef } from "../values/vocabularyRef.js";
import type { Determinism } from "./determinism.js";
import type { PositionScores } from "./scores.js";

/** Why a sequence ended. */
export type FinishReason = Short<FinishReason__Output, "FINISH_REASON">;

/** Counts of one call. */
export type Usage = Usage__Output;

/** Where the time of one call went on the server, in seconds. */
export interface Timing {
  /** Waiting for a place in the batch. */
  queueS: number;
  /** From the first prefill step to the first token. */
  prefillS: number;
  /** From the first token to the last. */
  decodeS: number;
  /** From arrival to the end. */
  totalS: number;
}

/** New tokens of one sequence. */
export interface TokenDelta {
  /** Index of the prompt in the request. */
  promptIndex: number;
  /** Index among the sequences of that prompt. */
  sequenceIndex: number;
  /** The new ids. */
  tokenIds: number[];
  /** What was asked for about them, one per id. */
  scores: PositionScores[];
  /** What was asked for about the prompt, with the first token. */
  promptScores: PositionScores[];
}

/** One finished sequence. */
export interface GeneratedSequence extends TokenDelta {
  /** Generated ids, without the prompt; a stop token is included. */
  tokenIds: number[];
  finishReason: FinishReason | undefined;
  /** Reproduces this sequence with its prompt and configuration. */
  seed: bigint;
  /** The stop string that was matched; empty when none was. */
  stopString: string;
  /** Beam score; undefined without beam search. */
  sequenceScore: number | undefined;
  /** Beam that each token came from. */
  beamIndices: number[];
  /** Why this sequence failed; others may not have. */
  error: LockstepError | undefined;
}

/** What is known of a generation beside its sequences. */
export interface GenerationFacts {
  /** The configuration that was used, every field resolved: keywords that give the same again. */
  effectiveConfig: GenerationOptions;
  /** The processors that were applied, in order. */
  appliedProcessors: string[];
  /** The vocabulary that was used. */
  vocabulary: VocabularyRef;
  usage: Usage;
  timing: Timing;
  determinism: Determinism;
  /** The session that holds the sequences, where one was asked for; else empty. */
  sessionId: string;
  /** Ids of each prompt, without padding; empty where a session goes on. */
  prompts: number[][];
}

/** All sequences of one call, by prompt and then by index. */
export class Generation implements GenerationFacts {
  readonly effectiveConfig: GenerationOptions;
  readonly appliedProcessors: string[];
  readonly vocabulary: VocabularyRef;
  readonly usage: Usage;
  readonly timing: Timing;
  readonly determinism: Determinism;
  readonly sessionId: string;
  readonly prompts: number[][];

  constructor(
    /** Everything about each sequence. */
    readonly details: readonly GeneratedSequence[],
    facts: GenerationFacts,
  ) {
    this.effectiveConfig = facts.effectiveConfig;
    this.appliedProcessors = facts.appliedProcessors;
    this.vocabulary = facts.vocabulary;
    this.usage = facts.usage;
    this.timing = facts.timing;
    this.determinism = facts.determinism;
    this.sessionId = facts.sessionId;
    this.prompts = facts.prompts;
  }

  /** Generated ids of each sequence, without the prompt; a stop token is included. */
  get sequences(): number[][] {
    return this.details.map((sequence) => sequence.tokenIds);
  }

  /**
   * Prompt and generated ids of each sequence, without padding. Throws a TypeError where a session
   * went on, which has the prompts: see its `tokenIds`.
   */
  get fullSequences(): number[][] {
    if (this.prompts.length === 0) {
      throw new TypeError("A session went on, and has the prompts: ask for its tokenIds().");
    }
    return this.details.map(({ promptIndex, tokenIds }) => [...this.prompts[promptIndex]!, ...tokenIds]);
  }

  /** Why each sequence ended. */
  get finishReasons(): (FinishReason | undefined)[] {
    return this.details.map((sequence) => sequence.finishReason);
  }

  /** Seed of each sequence. */
  get seeds(): bigint[] {
    return this.details.map((sequence) => sequence.seed);
  }

  /**
   * `[B, T, V]` raw logits; undefined unless asked for. `logits.row(b, t)` is the distribution from
   * which `sequences[b][t]` was drawn; rows after the end of a shorter sequence are NaN.
   */
  get logits(): Tensor<Float32Array> | undefined {
    return stackSequences(this.details.map(({ scores }) => scores.map((each) => each.logits)));
  }

  /** `[B, T, V]` processed scores, aligned as `logits`; excluded ids are `-Infinity`. */
  get scores(): Tensor<Float32Array> | undefined {
    return stackSequences(this.details.map(({ scores }) => scores.map((each) => each.scores)));
  }

  /** Returns this if no sequence has failed, and throws the error of the first that has. */
  throwErrors(): this {
    for (const { error } of this.details) if (error !== undefined) throw error;
    return this;
  }

  toJSON(): object {
    return withoutBigInts({ ...this });
  }
}

/** The continuation of one text. */
export class Completion {
  /** Its ids; a stop token is included. */
  readonly tokenIds: number[];
  readonly finishReason: FinishReason | undefined;
  /** The stop string that was matched; empty when none was. */
  readonly stopString: string;
  /** Reproduces it with the same prompt and configuration. */
  readonly seed: bigint;
  readonly usage: Usage;
  readonly timing: Timing;
  /** The configuration that was used, every field resolved: keywords that give the same again. */
  readonly effectiveConfig: GenerationOptions;
  /** The vocabulary that was used. */
  readonly vocabulary: VocabularyRef;

  /**
   * @param text the text generated, without the prompt and without control tokens; a stop string
   *   is included, with what its last token has behind it
   * @param promptTokenIds ids of the prompt
   * @param generation of its one sequence
   */
  constructor(
    readonly text: string,
    readonly promptTokenIds: number[],
    generation: Generation,
  ) {
    const sequence = generation.throwErrors().details[0]!;
    this.tokenIds = sequence.tokenIds;
    this.finishReason = sequence.finishReason;
    this.stopString = sequence.stopString;
    this.seed = sequence.seed;
    this.usage = generation.usage;
    this.timing = generation.timing;
    this.effectiveConfig = generation.effectiveConfig;
    this.vocabulary = generation.vocabulary;
  }

  /** The text up to the stop string; all of it when none was matched. */
  get textBeforeStop(): string {
    return this.stopString ? this.text.split(this.stopString, 1)[0]! : this.text;
  }

  toString(): string {
    return this.text;
  }

  toJSON(): object {
    return withoutBigInts({ ...this });
  }
}

/** Reads why a sequence ended. */
export function readFinishReason(message: FinishReason__Output): FinishReason | undefined {
  return short(message, "FINISH_REASON");
}

/** Reads the wire form. */
export function readTiming(message: Timing__Output | null | undefined): Timing {
  return {
    queueS: seconds(message?.queueDuration),
    prefillS: seconds(message?.prefillDuration),
    decodeS: seconds(message?.decodeDuration),
    totalS: seconds(message?.totalDuration),
  };
}

/** Writes 64-bit numbers as decimal texts, as the JSON form of the schema has them. */
function withoutBigInts(value: object): object {
  const text = JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? String(each) : each));
  return JSON.parse(text) as object;
}
