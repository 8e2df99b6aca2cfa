// Batches of token ids, ragged and padded. B is the number of rows, S the padded length.

import type { LockstepError } from "../errors.js";
import type { Ids, PaddingSide } from "../options.js";
import { idRow } from "../requests/message.js";
import type { EncodingDetails__Output } from "../schema/lockstep/v1/EncodingDetails.js";
import type { PaddedBatch, PaddedBatch__Output } from "../schema/lockstep/v1/PaddedBatch.js";
import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import type { TokenBatch, TokenBatch__Output } from "../schema/lockstep/v1/TokenBatch.js";
import type { VocabularyRef__Output } from "../schema/lockstep/v1/VocabularyRef.js";
import { readInts, Tensor, tensorMessage } from "./tensor.js";
import { readVocabularyRef, type VocabularyRef } from "./vocabularyRef.js";

/** What else is known about an encoded row. Lists are empty unless asked for. */
export interface Encoding {
  /** Ids that truncation removed. */
  truncatedTokenCount: number;
  /** Start and end (exclusive) of each token in its text, in the unit asked for. */
  offsets: [number, number][];
  /** 1 for tokens that the tokenizer added. */
  specialTokensMask: number[];
  /** Index of each token's word, null for tokens without one. */
  wordIds: (number | null)[];
  /** Spelling of each token. */
  tokens: string[];
  /** Bytes of each token. */
  tokenBytes: Buffer[];
  /** 0 for the first text of a pair, 1 for the second. */
  tokenTypeIds: number[];
}

/** What is known about a row of which nothing is. */
export function emptyEncoding(): Encoding {
  const lists = { offsets: [], specialTokensMask: [], wordIds: [], tokens: [], tokenBytes: [], tokenTypeIds: [] };
  return { truncatedTokenCount: 0, ...lists };
}

/** Reads the wire form. */
export function readEncoding(message: EncodingDetails__Output): Encoding {
  const { offsetStarts, offsetEnds, wordIds, ...others } = message;
  return {
    ...others,
    offsets: offsetStarts.map((start, index) => [start, offsetEnds[index]!]),
    wordIds: wordIds.map((word) => (word === -1 ? null : word)),
  };
}

/** The rectangular form of a batch: arrays `[B, S]` of 64-bit integers, as models take them. */
export class Padded {
  constructor(
    readonly inputIds: Tensor<BigInt64Array>,
    /** 1 at tokens and 0 at padding. */
    readonly attentionMask: Tensor<BigInt64Array>,
    /** The cumulative sum of the mask minus one, and 1 at padding. */
    readonly positionIds: Tensor<BigInt64Array>,
    readonly paddingSide: PaddingSide,
    /** The id at padding; undefined when nothing says which it is. */
    readonly padTokenId: number | undefined,
  ) {}

  /** Reads the wire form. */
  static read(message: PaddedBatch__Output): Padded {
    return new Padded(
      readInts(message.inputIds),
      readInts(message.attentionMask),
      readInts(message.positionIds),
      message.paddingSide === "PADDING_SIDE_RIGHT" ? "right" : "left",
      message.padTokenId,
    );
  }

  /** Builds the wire form. */
  message(): PaddedBatch {
    const { inputIds, attentionMask, positionIds, paddingSide, padTokenId } = this;
    return {
      inputIds: tensorMessage(inputIds),
      attentionMask: tensorMessage(attentionMask),
      positionIds: tensorMessage(positionIds),
      paddingSide: paddingSide === "right" ? "PADDING_SIDE_RIGHT" : "PADDING_SIDE_LEFT",
      ...(padTokenId === undefined ? {} : { padTokenId }),
    };
  }

  /**
   * Returns the rectangle with new tokens on the right, whichever side is padded. Positions go on
   * from each row's own length: that of the newest token is the number of real tokens before it,
   * not its column. Shorter continuations are filled up.
   */
  extended(continuations: readonly Ids[]): Padded {
    const [numRows = 0, width = 0] = this.inputIds.shape;
    const rows = continuations.map((row) => idRow(row, "continuations"));
    const added = Math.max(0, ...rows.map((row) => row.length));
    const join = (old: Tensor<BigInt64Array>, each: (row: number, column: number) => number) => {
      const joined = new BigInt64Array(numRows * (width + added));
      for (let row = 0; row < numRows; row++) {
        joined.set(old.row(row), row * (width + added));
        for (let column = 0; column < added; column++) {
          joined[row * (width + added) + width + column] = BigInt(each(row, column));
        }
      }
      return new Tensor(joined, [numRows, width + added]);
    };
    const isToken = (row: number, column: number) => column < rows[row]!.length;
    const length = (row: number) => this.attentionMask.row(row).reduce((sum, one) => sum + Number(one), 0);
    const pad = this.padTokenId ?? 0;
    return new Padded(
      join(this.inputIds, (row, column) => rows[row]![column] ?? pad),
      join(this.attentionMask, (row, column) => (isToken(row, column) ? 1 : 0)),
      join(this.positionIds, (row, column) => (isToken(row, column) ? length(row) + column : 1)),
      this.paddingSide,
      this.padTokenId,
    );
  }
}

/** Encoded texts. */
export class Batch {
  constructor(
    /** Ids of each row, without padding. */
    readonly tokenIds: number[][],
    /** The vocabulary that the ids belong to. */
    readonly vocabulary: VocabularyRef | undefined,
    /** The rectangular form; undefined unless padding was asked for. */
    readonly padded?: Padded,
    /** Details of each row; empty unless any were asked for or a row was cut. */
    readonly encodings: readonly Encoding[] = [],
    /** Rendered texts of a chat template, for display; else empty. */
    readonly texts: readonly string[] = [],
    /** Why rows failed, by row: of a call with `errors: "return"`. They have no ids. */
    readonly errors: ReadonlyMap<number, LockstepError> = new Map(),
  ) {}

  /** Number of rows. */
  get length(): number {
    return this.tokenIds.length;
  }

  /** `[B, S]`. Throws a TypeError without padding. */
  get inputIds(): Tensor<BigInt64Array> {
    return this.#rectangle().inputIds;
  }

  /** `[B, S]`, 1 at tokens and 0 at padding. Throws a TypeError without padding. */
  get attentionMask(): Tensor<BigInt64Array> {
    return this.#rectangle().attentionMask;
  }

  /** `[B, S]`. Throws a TypeError without padding. */
  get positionIds(): Tensor<BigInt64Array> {
    return this.#rectangle().positionIds;
  }

  /**
   * Returns prompts with their continuations, as `generate` of transformers returns them: ragged
   * rows joined, and the padded form, where there is one, grown on the right.
   */
  extended(continuations: readonly Ids[]): Batch {
    if (continuations.length !== this.length) {
      throw new TypeError(`The batch has ${this.length} rows, not ${continuations.length}.`);
    }
    const rows = this.tokenIds.map((row, index) => [...row, ...idRow(continuations[index], "continuations")]);
    return new Batch(rows, this.vocabulary, this.padded?.extended(continuations));
  }

  #rectangle(): Padded {
    if (this.padded === undefined) {
      throw new TypeError("The batch is ragged: encode with padding: 'longest', or pad it.");
    }
    return this.padded;
  }
}

/** What is taken wherever prompts are: a batch, or rows of ids. */
export type Prompts = Batch | readonly Ids[];

/** Builds the wire form of prompts. */
export function promptMessage(prompts: Prompts): PromptBatch {
  if (prompts instanceof Batch && prompts.padded !== undefined) {
    return { paddedBatch: prompts.padded.message() };
  }
  return { tokenBatch: tokenBatch(prompts instanceof Batch ? prompts.tokenIds : prompts) };
}

/** Returns the ids of prompts, without padding. */
export function rowsOf(prompts: Prompts): number[][] {
  if (!(prompts instanceof Batch)) return prompts.map((row) => idRow(row, "prompts"));
  if (prompts.padded === undefined || prompts.tokenIds.length > 0) return prompts.tokenIds;
  const { inputIds, attentionMask } = prompts.padded;
  const [count = 0, width = 0] = inputIds.shape;
  return Array.from({ length: count }, (_, row) => {
    const ids = inputIds.data.slice(row * width, (row + 1) * width);
    return Array.from(ids, Number).filter((_, column) => attentionMask.data[row * width + column] === 1n);
  });
}

/** Builds the wire form of rows of ids. */
export function tokenBatch(rows: readonly Ids[]): TokenBatch {
  if (!Array.isArray(rows)) {
    throw new TypeError("Prompts are a batch, or rows of token ids, for example [[1, 2], [3]].");
  }
  return { sequences: rows.map((row) => ({ ids: idRow(row, "prompts") })) };
}

/** Says whether ids are one row and not a batch of rows. */
export function isOneRow(rows: Prompts | Ids): rows is Ids {
  return !(rows instanceof Batch) && rows.length > 0 && typeof rows[0] !== "object";
}

/** Builds a padded or ragged batch from an answer. */
export function readBatch(
  answer: { paddedBatch: PaddedBatch__Output | null; vocabulary: VocabularyRef__Output | null },
  rows: TokenBatch__Output | null,
  encodings: EncodingDetails__Output[] = [],
  texts: string[] = [],
): Batch {
  return new Batch(
    (rows?.sequences ?? []).map((row) => row.ids),
    readVocabularyRef(answer.vocabulary),
    answer.paddedBatch ? Padded.read(answer.paddedBatch) : undefined,
    encodings.map(readEncoding),
    texts,
  );
}
