// Requests with any number of rows, cut into requests that a service takes.

import { serialized } from "../protos.js";
import type { GenerationConfig } from "../schema/lockstep/v1/GenerationConfig.js";
import type { PaddedBatch } from "../schema/lockstep/v1/PaddedBatch.js";
import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import type { Tensor } from "../schema/lockstep/v1/Tensor.js";
import type { TokenBatch } from "../schema/lockstep/v1/TokenBatch.js";
import type { RowLimits } from "./rowLimits.js";

/** Fields with an entry per row, whichever request has them; the first has all rows. */
const FIELDS = ["items", "batch", "prompt", "continuations", "seeds"] as const;

const HEADROOM_BYTES = 1024;
const GOLDEN_GAMMA = 0x9e3779b97f4a7c15n;

/** Some rows of a call: from the first to before the end. */
export type Range = readonly [first: number, end: number];

/** What has an entry per row. */
type Rows = readonly unknown[] | TokenBatch | PromptBatch;

/** A request whose rows can be sent in several ones. */
export class RowRequest<Request extends object> {
  /** Number of rows. */
  readonly length: number;
  readonly #columns: readonly (readonly [string, Rows])[];
  /** The request without its rows. */
  readonly #frame: object;

  /**
   * @param type name of the message
   * @param request with all rows
   */
  constructor(
    readonly type: string,
    private readonly request: Request,
  ) {
    const { items, batch, prompt, continuations, seeds, ...frame } = request as Record<string, Rows>;
    const given = { items, batch, prompt, continuations, seeds };
    this.#columns = FIELDS.map((name) => [name, given[name]] as const).filter(isPresent);
    this.#frame = frame;
    this.length = this.#columns[0] === undefined ? 0 : numRows(this.#columns[0][1]);
  }

  /** Returns the request with these rows only. */
  cut(rows: Range): Request {
    if (rows[1] - rows[0] === this.length) return this.request;
    const part = { ...this.#frame, ...this.#cutColumns(rows) };
    return (this.type === "GenerateRequest" ? withSeeds(part, rows) : part) as Request;
  }

  /**
   * Returns the rows of each request that the call is made of, in order. One that belongs together
   * is not cut: where a session is to hold its rows, and where fields have different numbers of
   * rows, which the service refuses.
   */
  parts({ whole, part, requestBytes }: RowLimits): Range[] {
    if (!this.#isDivisible()) return [[0, this.length]];
    const room = requestBytes - serialized(this.type, this.#frame).length - HEADROOM_BYTES;
    const sizes = Array.from({ length: this.length }, (_, row) => this.#size(row));
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (this.length <= whole && total <= room) return [[0, this.length]];
    const parts: Range[] = [];
    let [first, used] = [0, 0];
    sizes.forEach((size, row) => {
      if (row > first && (row - first === part || used + size > room)) {
        parts.push([first, row]);
        [first, used] = [row, 0];
      }
      used += size;
    });
    return [...parts, [first, this.length]];
  }

  #isDivisible(): boolean {
    const keepsSession = (this.request as { keepSession?: unknown }).keepSession !== undefined;
    return !keepsSession && this.#columns.every(([, rows]) => numRows(rows) === this.length);
  }

  #cutColumns(range: Range): object {
    return Object.fromEntries(this.#columns.map(([name, rows]) => [name, cut(rows, range)]));
  }

  /** Returns the bytes of a row, at least. */
  #size(row: number): number {
    return serialized(this.type, this.#cutColumns([row, row + 1])).length;
  }
}

/** Returns the seed of a row's first sequence, as the service derives it from that of the call. */
export function rowSeed(seed: number | bigint | string, row: number): bigint {
  if (row === 0) return BigInt(seed);
  const mixed = mix(mix(BigInt(seed) + GOLDEN_GAMMA * BigInt(row + 1)) + GOLDEN_GAMMA);
  return BigInt.asUintN(63, mixed);
}

/** Returns how many sequences of the service a row of a generation takes. */
export function sequencesPerRow(config: GenerationConfig | null | undefined): number {
  const { numBeams = 1, numReturnSequences = 1, guidanceScale = 1 } = config ?? {};
  const guided = Number(guidanceScale) === 1 ? 1 : 2;
  return Math.max(numBeams, Math.max(numReturnSequences, 1) * guided);
}

/** Applies the finalizer of SplitMix64. */
function mix(value: bigint): bigint {
  let mixed = BigInt.asUintN(64, value);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  return mixed ^ (mixed >> 31n);
}

/** Gives rows the seeds that the service would derive for them, had it all of the call. */
function withSeeds(part: { generationConfig?: GenerationConfig; seeds?: unknown }, [first, end]: Range): object {
  const { seed, ...config } = part.generationConfig ?? {};
  if (seed === undefined || part.seeds !== undefined) return part;
  const seeds = Array.from({ length: end - first }, (_, row) => String(rowSeed(String(seed), first + row)));
  return { ...part, generationConfig: config, seeds };
}

/** Says whether a request has a field; lists that are empty are not on the wire. */
function isPresent<Name>(column: readonly [Name, Rows | undefined]): column is readonly [Name, Rows] {
  const [, rows] = column;
  return rows !== undefined && (!("length" in rows) || rows.length > 0);
}

/** Returns the list with an entry per row; undefined for a rectangle. */
function entries(rows: Rows): readonly unknown[] | undefined {
  if ("length" in rows) return rows;
  const batch = "sequences" in rows ? rows : (rows as PromptBatch).tokenBatch;
  return batch?.sequences ?? undefined;
}

/** Counts the rows of a field that has one entry per row. */
export function numRows(rows: Rows): number {
  const rectangle = (rows as PromptBatch).paddedBatch;
  return entries(rows)?.length ?? Number(rectangle?.inputIds?.shape?.[0] ?? 0);
}

function cut(rows: Rows, [first, end]: Range): Rows {
  if ("length" in rows) return rows.slice(first, end);
  if ("sequences" in rows) return { sequences: rows.sequences!.slice(first, end) };
  const { tokenBatch, paddedBatch } = rows as PromptBatch;
  if (paddedBatch) return { paddedBatch: cutRectangle(paddedBatch, [first, end]) };
  return { tokenBatch: cut(tokenBatch ?? { sequences: [] }, [first, end]) as TokenBatch };
}

function cutRectangle({ inputIds, attentionMask, positionIds, ...others }: PaddedBatch, range: Range): PaddedBatch {
  const tensors = Object.entries({ inputIds, attentionMask, positionIds });
  const given = tensors.filter((entry): entry is [string, Tensor] => Boolean(entry[1]));
  return { ...others, ...Object.fromEntries(given.map(([name, tensor]) => [name, cutTensor(tensor, range)])) };
}

function cutTensor({ dtype, shape = [], data }: Tensor, [first, end]: Range): Tensor {
  const bytes = data as Buffer;
  const [count, ...rest] = shape;
  const rowBytes = bytes.length / Number(count);
  return { dtype: dtype!, shape: [end - first, ...rest], data: bytes.subarray(first * rowBytes, end * rowBytes) };
}
