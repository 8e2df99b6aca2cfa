// Rows that are longer than what the model sees at once, scored in windows.

import { LockstepError } from "../errors.js";
import { scoredSequence, type ScoredSequence } from "../results/scores.js";
import type { ScoreRequest } from "../schema/lockstep/v1/ScoreRequest.js";
import { promptRows } from "../values/promptRows.js";

/** A piece of a row. */
interface Window {
  /** The number of the row. */
  readonly row: number;
  /** Index of its first token. */
  readonly begin: number;
  /** Index of the first token that is scored in it. */
  readonly scoredFrom: number;
  /** Index after its last token. */
  readonly end: number;
}

/** A row, and the index of its first token that is scored. */
interface Row {
  readonly ids: readonly number[];
  readonly first: number;
}

/** The windows of a `Score` request, each of which is a row of another request. */
export class Windows {
  /** The other one; the same where no row is longer than a window. */
  readonly request: ScoreRequest;
  /** Most tokens of a row of it. */
  readonly longest: number;
  readonly #windows: readonly Window[];

  /**
   * Cuts. Throws a TypeError where a window of that size or stride leaves tokens out.
   *
   * @param request with all rows
   * @param size most tokens of a window; undefined for no windows
   * @param stride how far a window is moved; half its size unless given
   */
  constructor(request: ScoreRequest, size: number | undefined, stride?: number) {
    checkSizes(size, stride);
    const prompts = [...promptRows(request.prompt)];
    const rows = rowsOf(request, prompts);
    const longest = rows.reduce((most, { ids }) => Math.max(most, ids.length), 0);
    // Where there is not a continuation for each prompt, the service refuses the request.
    const areCut = size !== undefined && rows.length === prompts.length && longest > size;
    this.longest = areCut ? size : longest;
    this.#windows = areCut ? rows.flatMap((row, index) => windowsOf(row, index, size, stride ?? size >> 1)) : [];
    const pieces = (piece: (window: Window) => [number, number]) => ({
      sequences: this.#windows.map((window) => ({ ids: rows[window.row]!.ids.slice(...piece(window)) })),
    });
    this.request = areCut
      ? {
          ...request,
          prompt: { tokenBatch: pieces(({ begin, scoredFrom }) => [begin, scoredFrom]) },
          continuations: pieces(({ scoredFrom, end }) => [scoredFrom, end]),
        }
      : request;
  }

  /** Of each row of the request the number of the caller's row; undefined where they are the same. */
  get rowNumbers(): readonly number[] | undefined {
    return this.#windows.length > 0 ? this.#windows.map(({ row }) => row) : undefined;
  }

  /** Returns the results of the rows of the caller; that of a row that failed is its error. */
  joined(scored: readonly (ScoredSequence | LockstepError)[]): (ScoredSequence | LockstepError)[] {
    if (this.#windows.length === 0) return [...scored];
    const rows: (ScoredSequence | LockstepError)[][] = [];
    for (const [index, { row, begin }] of this.#windows.entries()) {
      const result = scored[index]!;
      (rows[row] ??= []).push(result instanceof LockstepError ? result : moved(result, begin));
    }
    return rows.map(joinedRow);
  }
}

function checkSizes(size: number | undefined, stride: number | undefined): void {
  for (const [name, value] of Object.entries({ window: size, stride })) {
    if (value !== undefined && !Number.isInteger(value)) {
      throw new TypeError(`${name} takes a whole number, not ${String(value)}.`);
    }
  }
  if (size === undefined && stride !== undefined) throw new TypeError("stride needs window.");
  if (size === undefined) return;
  const step = stride ?? size >> 1;
  if (step < 1 || step >= size) {
    throw new TypeError(`window is at least 2 and stride at least 1 and below it, not ${size} and ${step}.`);
  }
}

function rowsOf({ continuations }: ScoreRequest, prompts: readonly (readonly number[])[]): Row[] {
  if (!continuations) return prompts.map((ids) => ({ ids, first: 1 }));
  const sequences = continuations.sequences ?? [];
  if (sequences.length !== prompts.length) return [];
  return prompts.map((ids, index) => ({
    ids: [...ids, ...((sequences[index]!.ids ?? []) as number[])],
    first: Math.max(ids.length, 1),
  }));
}

/**
 * Returns windows, so that each token from the first one on is scored in one of them. Before a
 * token that is scored there are `size - stride` others, or all that there are.
 */
function windowsOf({ ids, first }: Row, row: number, size: number, stride: number): Window[] {
  const count = ids.length;
  if (count <= size || first >= count) return [{ row, begin: 0, scoredFrom: Math.min(first, count), end: count }];
  const windows: Window[] = [];
  for (let scoredFrom = first; scoredFrom < count; scoredFrom = windows.at(-1)!.end) {
    const begin = Math.max(scoredFrom - (size - stride), 0);
    windows.push({ row, begin, scoredFrom, end: Math.min(begin + size, count) });
  }
  return windows;
}

function moved({ scores, ...others }: ScoredSequence, begin: number): ScoredSequence {
  return { ...others, scores: scores.map((each) => ({ ...each, position: each.position + begin })) };
}

function joinedRow(parts: readonly (ScoredSequence | LockstepError)[]): ScoredSequence | LockstepError {
  const scored: ScoredSequence[] = [];
  for (const part of parts) {
    if (part instanceof LockstepError) return part;
    scored.push(part);
  }
  return scoredSequence({
    scores: scored.flatMap(({ scores }) => scores),
    logitsLogprob: scored.reduce((sum, { logitsLogprob }) => sum + logitsLogprob, 0),
    greedy: scored.every(({ greedy }) => greedy),
  });
}
