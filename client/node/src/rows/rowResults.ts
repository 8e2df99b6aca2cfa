// Results of parts of a call, put together to those of the whole call.

import type { LockstepError } from "../errors.js";
import { Generation, type GeneratedSequence, type Timing, type Usage } from "../results/generation.js";
import { Batch, emptyEncoding, Padded } from "../values/batch.js";
import { Tensor } from "../values/tensor.js";
import type { VocabularyRef } from "../values/vocabularyRef.js";
import type { Part } from "./rowCall.js";

/** Joins lists with an entry per row; the entry of a row that failed is its error. */
export function joinLists<Row>(parts: readonly Part<readonly Row[]>[]): (Row | LockstepError)[] {
  return parts.flatMap((part): readonly (Row | LockstepError)[] =>
    part.error ? repeated(part, part.error) : part.result,
  );
}

/** Returns the newest revision that parts were encoded with; undefined where all have the same. */
export function newestOfSeveral(parts: readonly Part<Batch>[]): number | undefined {
  const revisions = parts.flatMap(({ result }) => result?.vocabulary?.revision ?? []);
  return new Set(revisions).size > 1 ? Math.max(...revisions) : undefined;
}

/** Joins batches, and pads them together. A row that failed has no ids, and its error in `errors`. */
export function joinBatches(parts: readonly Part<Batch>[]): Batch {
  const [only, ...others] = parts;
  if (only?.result && others.length === 0) return only.result;
  const hasDetails = parts.some(({ result }) => result?.encodings.length);
  const encodings = parts.flatMap((part) =>
    part.result?.encodings.length ? part.result.encodings : repeated(part, emptyEncoding()),
  );
  return new Batch(
    parts.flatMap((part) => part.result?.tokenIds ?? rowsOf(part).map(() => [])),
    newest(parts.map(({ result }) => result?.vocabulary)),
    joinRectangles(parts),
    hasDetails ? encodings : [],
    [],
    new Map(parts.flatMap((part) => rowsOf(part).flatMap((row) => (part.error ? [[row, part.error]] : [])))),
  );
}

/**
 * Joins generations: counts are added up, and times are those of the slowest request. A row that
 * failed has one sequence, with its error. Throws the first error where every row failed.
 *
 * @param prompts ids of each prompt of all parts
 */
export function joinGenerations(parts: readonly Part<Generation>[], prompts: () => number[][]): Generation {
  const results = parts.flatMap(({ result }) => result ?? []);
  const [first] = results;
  if (first === undefined) throw parts[0]!.error!;
  if (parts.length === 1) return first;
  return new Generation(parts.flatMap(sequences), {
    ...first,
    prompts: prompts(),
    vocabulary: newest(results.map(({ vocabulary }) => vocabulary))!,
    usage: combined<Usage>(results.map(({ usage }) => usage), (...counts) => counts.reduce((sum, each) => sum + each)),
    timing: combined<Timing>(results.map(({ timing }) => timing), Math.max),
  });
}

function sequences(part: Part<Generation>): GeneratedSequence[] {
  if (part.error) return rowsOf(part).map((row) => failed(row, part.error));
  return part.result.details.map((sequence) => ({
    ...sequence,
    promptIndex: part.rows[0] + sequence.promptIndex,
  }));
}

function failed(promptIndex: number, error: LockstepError): GeneratedSequence {
  return {
    promptIndex,
    sequenceIndex: 0,
    tokenIds: [],
    finishReason: "error",
    seed: 0n,
    scores: [],
    promptScores: [],
    stopString: "",
    sequenceScore: undefined,
    beamIndices: [],
    error,
  };
}

function combined<Counts extends object>(
  all: readonly Counts[],
  combine: (...values: number[]) => number,
): Counts {
  const names = Object.keys(all[0]!) as (keyof Counts)[];
  return Object.fromEntries(
    names.map((name) => [name, combine(...all.map((each) => each[name] as number))]),
  ) as Counts;
}

function newest(refs: readonly (VocabularyRef | undefined)[]): VocabularyRef | undefined {
  const [first, ...others] = refs.filter((ref) => ref !== undefined);
  return others.reduce((one, other) => (one!.revision >= other.revision ? one : other), first);
}

/** Widens rectangles to the widest, on the side that is padded, and stacks them. */
function joinRectangles(parts: readonly Part<Batch>[]): Padded | undefined {
  const rectangles = parts.flatMap(({ result }) => result?.padded ?? []);
  const [model] = rectangles;
  if (model === undefined) return undefined;
  const numRows = parts.at(-1)!.rows[1];
  const width = Math.max(...rectangles.map(({ inputIds }) => inputIds.shape[1]!));
  const stacked = (name: "inputIds" | "attentionMask" | "positionIds", fill: number) => {
    const data = new BigInt64Array(numRows * width).fill(BigInt(fill));
    for (const { rows: [first], result } of parts) {
      const given = result?.padded?.[name];
      const [count = 0, length = 0] = given?.shape ?? [];
      const missing = model.paddingSide === "left" ? width - length : 0;
      for (let row = 0; row < count; row++) data.set(given!.row(row), (first + row) * width + missing);
    }
    return new Tensor(data, [numRows, width]);
  };
  return new Padded(
    stacked("inputIds", model.padTokenId ?? 0),
    stacked("attentionMask", 0),
    stacked("positionIds", 1),
    model.paddingSide,
    model.padTokenId,
  );
}

function rowsOf({ rows: [first, end] }: Part<unknown>): number[] {
  return Array.from({ length: end - first }, (_, row) => first + row);
}

function repeated<Each>(part: Part<unknown>, each: Each): Each[] {
  return rowsOf(part).map(() => each);
}
