// Calls with any number of rows, made as requests that the service takes.

import { Cancelled, LockstepError } from "../errors.js";
import type { ManyOptions } from "../options.js";
import type { CallOptions } from "../transport/endpoint.js";
import type { RowLimits } from "./rowLimits.js";
import type { Range, RowRequest } from "./rowRequest.js";

/** How errors name a row: `row 3`, `texts[3]`, `prompts[3]`. */
const ROW = /(\b[Rr]ow |\b(?:texts|rows|prompts|continuations|seeds)\[)(\d+)/g;

const TOO_LARGE: readonly string[] = ["MESSAGE_TOO_LARGE", "RESPONSE_TOO_LARGE", "KV_CACHE_EXCEEDED"];

/** Options of a call whose result has the error of a row that failed in its place. */
export type Returning<Options> = Options & { errors: "return" } & CallOptions;

/** What came of some rows of a call: their result, or why they failed. */
export type Part<Result> = { rows: Range } & (
  | { result: Result; error?: undefined }
  | { result?: undefined; error: LockstepError }
);

/**
 * Makes a call, in parts where it has more rows or bytes than one request may have, and returns
 * the results in the order of the rows. Throws the error of the first that fails, located in the
 * call, unless errors are to be returned.
 *
 * @param rows the request with all rows
 * @param call sends a request with some of them
 * @param limits asks for the limits of the service
 * @param options `timeoutMs` is of the whole call; the client's own holds for each request
 * @param rowNumbers how the caller numbers the rows, where that is not their order
 */
export async function callRows<Request extends object, Result>(
  rows: RowRequest<Request>,
  call: (request: Request, options: CallOptions) => Promise<Result>,
  limits: () => Promise<RowLimits>,
  options: ManyOptions & CallOptions,
  rowNumbers?: readonly number[],
): Promise<Part<Result>[]> {
  const { errors, progress, concurrency, timeoutMs, signal, ...names } = options;
  const returns = returnsErrors(errors);
  const bounds = rows.length > 1 ? await limits() : undefined;
  const parts: Range[] = bounds ? rows.parts(bounds) : [[0, rows.length]];
  const numWorkers = concurrency ?? (bounds ? requestsAtOnce(bounds) : 1);
  const left = timeLeft(timeoutMs);
  let numDone = 0;
  const advance = (count: number) => progress?.((numDone += count), rows.length);

  const run = async ([first, end]: Range, stopped: AbortSignal): Promise<Part<Result>[]> => {
    try {
      const result = await call(rows.cut([first, end]), { ...names, timeoutMs: left(), signal: stopped });
      advance(end - first);
      return [{ rows: [first, end], result }];
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      if (end - first > 1 && mayPassInHalves(error, returns)) {
        const middle = first + Math.floor((end - first) / 2);
        return [...(await run([first, middle], stopped)), ...(await run([middle, end], stopped))];
      }
      locate(error, (row) => rowNumbers?.[first + row] ?? first + row);
      if (!returns) throw error;
      advance(end - first);
      return [{ rows: [first, end], error }];
    }
  };
  return (await runEach(run, parts, numWorkers, signal)).flat();
}

/**
 * Runs `work` on every item, and returns the results in the order of the items. The first failure
 * is thrown, and ends what still runs.
 *
 * @param work what is done with an item
 * @param items the items
 * @param numWorkers most of them at a time
 * @param signal ends all
 */
export async function runEach<Item, Result>(
  work: (item: Item, signal: AbortSignal) => Promise<Result>,
  items: readonly Item[],
  numWorkers: number,
  signal: AbortSignal | undefined,
): Promise<Result[]> {
  if (!Number.isInteger(numWorkers) || numWorkers < 1) {
    throw new TypeError(`concurrency takes whole numbers from 1 on, not ${String(numWorkers)}.`);
  }
  const stop = new AbortController();
  const stopped = signal ? AbortSignal.any([stop.signal, signal]) : stop.signal;
  const results: Result[] = [];
  const remaining = items.entries();
  const take = async () => {
    for (const [index, item] of remaining) results[index] = await work(item, stopped);
  };
  const workers = Array.from({ length: Math.min(numWorkers, items.length) }, take);
  try {
    await Promise.all(workers);
  } catch (error) {
    stop.abort(new Cancelled("Another part of the call has failed.", { code: "CANCELLED" }));
    await Promise.allSettled(workers);
    throw error;
  }
  return results;
}

/** Returns what says how much time the next request of a call has, from now on. */
export function timeLeft<Limit extends number | null | undefined>(timeoutMs: Limit): () => Limit | number {
  if (typeof timeoutMs !== "number") return () => timeoutMs;
  const deadline = Date.now() + timeoutMs;
  return () => Math.max(deadline - Date.now(), 0);
}

/** Says whether the errors of rows are returned. */
export function returnsErrors(errors: unknown = "raise"): boolean {
  if (errors === "raise" || errors === "return") return errors === "return";
  throw new TypeError(`errors is one of 'raise', 'return', not '${String(errors)}'.`);
}

function requestsAtOnce({ atOnce, part }: RowLimits): number {
  return Math.max(Math.floor(atOnce / part), 1);
}

/** Says whether fewer rows at a time can help; where errors are returned, the other rows count. */
function mayPassInHalves(error: LockstepError, returns: boolean): boolean {
  if (TOO_LARGE.includes(error.reason)) return true;
  const names = [error.message, ...error.violations.map(({ field }) => field)];
  return returns && names.some((text) => text.search(ROW) >= 0);
}

/** Lets an error of a request name the rows of the call that the request is a part of. */
function locate(error: LockstepError, numbered: (row: number) => number): void {
  const shift = (text: string) =>
    text.replace(ROW, (_, before: string, row: string) => before + String(numbered(Number(row))));
  const { row, ...others } = error.metadata;
  Object.assign(error, {
    message: shift(error.message),
    metadata: row === undefined ? others : { ...others, row: String(numbered(Number(row))) },
    violations: error.violations.map(({ field, description }) => ({
      field: shift(field),
      description: shift(description),
    })),
  });
}
