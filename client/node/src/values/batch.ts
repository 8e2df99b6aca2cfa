// Batches of token ids, ragged and padded. B is the number of rows, S the padded length.

import type { LockstepError } from "../errors.js";
import type { Ids, PaddingSide } from "../options.js";
import { idRow } from "../requests/message.js";
import type { EncodingDetails__Output } from "../schema/lockstep/v1/EncodingDetails.js";
import type { PaddedBatch, PaddedBatch__Output } from "../schema/lockstep/v1/PaddedBatch.js";
import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import type { TokenBatch, TokenBatch__Output } from "../schema/lockstep/v1/TokenBatch.js";
import type { VocabularyRef__Output } from "../schema/lockstep/v1/VocabularyRef.js";
import { piece } from "./piece.js";
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
  /** What each id stands for, to be seen; empty unless bytes or spellings were asked for. */
  pieces: string[];
}

/** What is known about a row of which nothing is. */
export function emptyEncoding(): Encoding {
  const ofTokens = { specialTokensMask: [], wordIds: [], tokens: [], tokenBytes: [], tokenTypeIds: [] };
  return { truncatedTokenCount: 0, offsets: [], pieces: [], ...ofTokens };
}

/** Reads the wire form. */
export function readEncoding(message: EncodingDetails__Output): Encoding {
  const { offsetStarts, offsetEnds, wordIds, ...others } = message;
  return {
    ...others,
    offsets: offsetStarts.map((start, index) => [start, offsetEnds[index]!]),
    wordIds: wordIds.map((word) => (word === -1 ? null : word)),
    pieces: others.tokenBytes.length > 0 ? others.tokenBytes.map(piece) : [...others.tokens],
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

  /** Builds the rectangle of rows that are equally long, and so have no padding. */
  static ofEqualRows(rows: readonly (readonly number[])[]): Padded {
    const width = rows[0]?.length ?? 0;
    const filled = (each: (row: number, column: number) => number) => {
      const numbers = rows.flatMap((row, index) => row.map((_, column) => BigInt(each(index, column))));
      return new Tensor(BigInt64Array.from(numbers), [rows.length, width]);
    };
    const ids = filled((row, column) => rows[row]![column]!);
    return new Padded(ids, filled(() => 1), filled((_, column) => column), "left", undefined);
  }

  /** Builds the wire form. @internal */
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
    /** The rectangular form that was asked for; undefined unless padding was. */
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

  /** `[B, S]`. Throws a TypeError where rows differ in length without padding. */
  get inputIds(): Tensor<BigInt64Array> {
    return this.#rectangle().inputIds;
  }

  /** `[B, S]`, 1 at tokens and 0 at padding. Throws a TypeError as `inputIds`. */
  get attentionMask(): Tensor<BigInt64Array> {
    return this.#rectangle().attentionMask;
  }

  /** `[B, S]`. Throws a TypeError as `inputIds`. */
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
    if (this.padded !== undefined) return this.padded;
    if (this.tokenIds.some((row) => row.length !== this.tokenIds[0]!.length)) {
      throw new TypeError("The rows differ in length: encode with padding: 'longest', or pad them.");
    }
    return Padded.ofEqualRows(this.tokenIds);
  }
}

/** What is taken wherever prompts are: a batch, or rows of ids. */
export type Prompts = Batch | readonly Ids[];

/** Builds the wire form of prompts. */
export function promptMessage(prompts: Prompts): PromptBatch {
  if (prompts instanceof Batch && prompts.padded !== undefined) {
    return { paddedBatch: prompts.padded.message() };
  }
  return { tokenBatch: tokenBatch(prompts instanceof Batch ? prompts.tokenIds : prompts, "prompts") };
}

/** Builds the wire form of rows of ids; `where` names them in errors. */
export function tokenBatch(rows: readonly Ids[], where: string): TokenBatch {
  if (!Array.isArray(rows)) {
    throw new TypeError(`${where} takes a batch, or rows of token ids, for example [[1, 2], [3]].`);
  }
  return { sequences: rows.map((row, index) => ({ ids: idRow(row, `${where}[${index}]`) })) };
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
