// What is known about the distribution at one position. The distribution at index t is the one
// from which token t was drawn. V is the size of the vocabulary.

import { ProtocolError } from "../errors.js";
import type { ComputeLogitsResponse__Output } from "../schema/lockstep/v1/ComputeLogitsResponse.js";
import type { DataType__Output } from "../schema/lockstep/v1/DataType.js";
import type { PositionScores__Output } from "../schema/lockstep/v1/PositionScores.js";
import type { ScoredSequence__Output } from "../schema/lockstep/v1/ScoredSequence.js";
import type { ScoreRow__Output } from "../schema/lockstep/v1/ScoreRow.js";
import type { TensorChunk__Output } from "../schema/lockstep/v1/TensorChunk.js";
import type { TokenScore__Output } from "../schema/lockstep/v1/TokenScore.js";
import { readFloats, stackRows, type Tensor } from "../values/tensor.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";
import { readDeterminism, type Determinism } from "./determinism.js";

/** What was asked for about one position; what was not asked for is undefined. */
export interface PositionScores extends Omit<PositionScores__Output, "logits" | "scores"> {
  /** `[V]` raw logits. */
  logits?: Float32Array;
  /** `[V]` processed scores, `-Infinity` where excluded. */
  scores?: Float32Array;
}

/** One id of a distribution: its raw logit and its processed score, as far as asked for. */
export type TokenScore = TokenScore__Output;

/** The probabilities of given tokens. */
export interface ScoredSequence extends Omit<ScoredSequence__Output, "scores"> {
  /** One per token scored. */
  scores: PositionScores[];
  /** Exp of the mean negative log-probability of the tokens scored. */
  perplexity: number;
}

/** Adds what follows from the probabilities of the tokens. */
export function scoredSequence(scored: Omit<ScoredSequence, "perplexity">): ScoredSequence {
  return { ...scored, perplexity: Math.exp(-scored.logitsLogprob / scored.scores.length) };
}

/** Finds the values of a full row. */
export type ReadRow = (row: ScoreRow__Output) => Float32Array;

/** Reads a row in the message itself, as outside of streams. */
export function inlineRow({ tensor }: ScoreRow__Output): Float32Array {
  if (!tensor) throw new ProtocolError("A row of logits or scores has no values.");
  return readFloats(tensor.data, tensor.dtype);
}

/** Reads the wire form of a list of positions. */
export function readPositions(
  messages: readonly PositionScores__Output[],
  readRow: ReadRow = inlineRow,
): PositionScores[] {
  return messages.map(({ logits, scores, ...others }) => ({
    ...others,
    ...(logits ? { logits: readRow(logits) } : {}),
    ...(scores ? { scores: readRow(scores) } : {}),
  }));
}

/** Next-token distributions of prompts. */
export class NextTokenScores {
  constructor(
    /** What was asked for, by prompt and position. */
    readonly rows: PositionScores[][],
    readonly vocabulary: VocabularyRef,
    readonly determinism: Determinism,
  ) {}

  /** Reads the answer of `ComputeLogits`. */
  static read({ rows, vocabulary, determinism }: ComputeLogitsResponse__Output): NextTokenScores {
    return new NextTokenScores(
      rows.map((row) => readPositions(row.scores)),
      readVocabularyRef(vocabulary),
      readDeterminism(determinism),
    );
  }

  /** `[B, V]` raw logits after each prompt; undefined without full rows. */
  get logits(): Tensor<Float32Array> | undefined {
    return stackRows(this.rows.map((row) => row.at(-1)?.logits));
  }

  /** `[B, V]` processed scores after each prompt; undefined without full rows. */
  get scores(): Tensor<Float32Array> | undefined {
    return stackRows(this.rows.map((row) => row.at(-1)?.scores));
  }
}

/** Full rows of one stream that follow the message that announces them, in chunks. */
export class AnnouncedRows {
  readonly #pieces = new Map<string, { bytes: Buffer[]; length: number; total: number }>();

  /** Takes a piece of a row. */
  add({ tensorId, offset, totalBytes, data }: TensorChunk__Output): void {
    const row = this.#pieces.get(tensorId) ?? { bytes: [], length: 0, total: Number(totalBytes) };
    if (Number(offset) !== row.length) {
      throw new ProtocolError(`Tensor ${tensorId}: a piece at byte ${offset} arrived after ${row.length} bytes.`);
    }
    row.bytes.push(data);
    row.length += data.length;
    this.#pieces.set(tensorId, row);
  }

  /** Says whether every row that was announced at these positions has arrived. */
  complete(positions: readonly PositionScores__Output[]): boolean {
    return positions
      .flatMap(({ logits, scores }) => [logits?.tensorId, scores?.tensorId])
      .filter((tensorId) => tensorId !== undefined)
      .every((tensorId) => {
        const row = this.#pieces.get(tensorId);
        return row !== undefined && row.length === row.total;
      });
  }

  /**
   * Returns the values of a row, in its message or announced in it, and forgets them.
   *
   * @param row the row
   * @param asked the element type, where an older server does not say it
   */
  take(row: ScoreRow__Output, asked: DataType__Output): Float32Array {
    if (row.tensorId === undefined) return inlineRow(row);
    const { bytes = [] } = this.#pieces.get(row.tensorId) ?? {};
    this.#pieces.delete(row.tensorId);
    const dtype = row.dtype === "DATA_TYPE_UNSPECIFIED" ? asked : row.dtype;
    return readFloats(Buffer.concat(bytes), dtype);
  }
}
