// The next-token distribution after a prompt, before and after every processor.

import type { ComputeLogitsResponse__Output } from "../schema/lockstep/v1/ComputeLogitsResponse.js";
import type { PositionScores__Output } from "../schema/lockstep/v1/PositionScores.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";

const MODEL_STAGE = "model";
/** Where ids that must not be generated are left out and no processor is applied. */
const EXCLUSION_STAGE = "not generable";
/** What rounding leaves of nothing is nothing. */
const LEAST_SHARE = 1e-9;

/** What a distribution has of a prompt. */
interface Facts {
  tokenIds: number[];
  stages: string[];
  scores: Float32Array[];
  logsumexp: number[];
  position: number;
  vocabulary: VocabularyRef;
}

/**
 * What may come next after a prompt, before and after every processor. As a text it is a table; to
 * be plotted, `probabilities` has a row of bars for each of `stages`, named by `texts`.
 */
export class Distribution {
  /** The tokens: the most probable ones of the model, then those that the processors bring up. */
  readonly tokenIds: number[];
  /** `model`, then the name of each processor in the order in which they are applied. */
  readonly stages: string[];
  /**
   * A row for each stage with the value of each token: raw logits at first, then the scores after
   * each processor; `-Infinity` where a token is excluded.
   */
  readonly scores: Float32Array[];
  /** Of each stage, over the whole vocabulary. */
  readonly logsumexp: number[];
  /** Number of tokens before. */
  readonly position: number;
  /** The vocabulary that was used. */
  readonly vocabulary: VocabularyRef;

  constructor(
    facts: Facts,
    /** What each token stands for, with every character visible; empty where only ids are known. */
    readonly texts: readonly string[] = [],
  ) {
    this.tokenIds = facts.tokenIds;
    this.stages = facts.stages;
    this.scores = facts.scores;
    this.logsumexp = facts.logsumexp;
    this.position = facts.position;
    this.vocabulary = facts.vocabulary;
  }

  /** A row for each stage: softmax over the whole vocabulary; 0 where a token is excluded. */
  get probabilities(): number[][] {
    return this.scores.map((row, stage) => Array.from(row, (score) => share(score, this.logsumexp[stage]!)));
  }

  /** Returns a table, with a column for each stage. */
  toString(): string {
    const named = this.texts.length > 0;
    const head = [...(named ? ["token"] : []), "id", ...this.stages];
    const rows = [head, ...this.#rows(named)];
    const widths = head.map((_, column) => Math.max(...rows.map((row) => width(row[column]!))));
    const lines = rows.map((row) =>
      row.map((cell, column) => {
        const padding = " ".repeat(widths[column]! - width(cell));
        return column === 0 ? cell + padding : padding + cell;
      }),
    );
    return lines.map((cells) => cells.join("  ").trimEnd()).join("\n");
  }

  /** Returns the same with what the tokens stand for. */
  withTexts(texts: readonly string[]): Distribution {
    return new Distribution(this, texts);
  }

  #rows(named: boolean): string[][] {
    const stages = this.probabilities;
    const rows = this.tokenIds.map((id, token) => [
      ...(named ? [this.texts[token]!] : []),
      String(id),
      ...stages.map((row) => percent(row[token]!)),
    ]);
    const rests = stages.map((row) => 1 - row.reduce((sum, each) => sum + each, 0));
    const others = rests.map((rest) => percent(rest < LEAST_SHARE ? 0 : rest));
    return [...rows, ["others", ...(named ? [""] : []), ...others]];
  }
}

/** Reads one distribution for each prompt. */
export function readDistributions({ rows, vocabulary }: ComputeLogitsResponse__Output): Distribution[] {
  const ref = readVocabularyRef(vocabulary);
  return rows.flatMap((row) => row.scores.map((position) => new Distribution(readFacts(position, ref))));
}

/** Reads a position whose trace has the scores of the tokens that are shown. */
function readFacts(message: PositionScores__Output, vocabulary: VocabularyRef): Facts {
  const { tokens, processorTrace: trace, logitsLogsumexp = 0, scoresLogsumexp = 0, position } = message;
  const stages = [MODEL_STAGE, ...trace.map(({ processor }) => processor)];
  const scores = [tokens.map(({ logit = 0 }) => logit), ...trace.map(({ tokenScores }) => tokenScores)];
  const logsumexp = [logitsLogsumexp, ...trace.map((entry) => entry.logsumexp ?? 0)];
  if (trace.length === 0 && scoresLogsumexp !== logitsLogsumexp) {
    stages.push(EXCLUSION_STAGE);
    scores.push(tokens.map(({ score = 0 }) => score));
    logsumexp.push(scoresLogsumexp);
  }
  return {
    tokenIds: tokens.map(({ tokenId }) => tokenId),
    stages,
    scores: scores.map((row) => Float32Array.from(row)),
    logsumexp,
    position,
    vocabulary,
  };
}

function share(score: number, logsumexp: number): number {
  return score === -Infinity ? 0 : Math.exp(score - logsumexp); // also where a stage leaves no token
}

function percent(probability: number): string {
  return probability ? `${(probability * 100).toFixed(1)}%` : "-";
}

/** Counts characters. */
function width(cell: string): number {
  return [...cell].length;
}
