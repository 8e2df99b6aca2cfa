// Which names exist. TypeScript finds a wrong one by itself, JavaScript here.

import { camel } from "../keywords.js";
import { GenerationOptions, ManyOptions } from "../options.js";
import { CallOptions, checkTimeout } from "../transport/endpoint.js";
import { ELSEWHERE } from "../words.js";

const REASONS = new Map(ELSEWHERE);

/** Checks the options of a call, and returns those of every call and its own keywords. */
export function split<Options extends CallOptions>(
  options: Options,
  keywords: readonly string[],
): [CallOptions, Omit<Options, keyof CallOptions>] {
  checkNames(options, [...keywords, ...CallOptions], "an option of this call");
  const { timeoutMs, signal, requestId, traceparent, ...others } = options;
  checkTimeout("timeoutMs", timeoutMs);
  return [{ timeoutMs, signal, requestId, traceparent }, others];
}

/** As `split`, of a call that takes any number of rows: its options keep those of such calls. */
export function splitMany<Options extends ManyOptions & CallOptions>(
  options: Options,
  keywords: readonly string[],
): [ManyOptions & CallOptions, Omit<Options, keyof (ManyOptions & CallOptions)>] {
  const [call, others] = split(options, [...keywords, ...ManyOptions]);
  const { errors, progress, concurrency, ...own } = others as ManyOptions;
  return [{ ...call, errors, progress, concurrency }, own as Omit<Options, keyof (ManyOptions & CallOptions)>];
}

/** Refuses names that do not exist, and says which was probably meant. */
export function checkNames(given: object, existing: readonly string[], what: string): void {
  const generates = GenerationOptions.every((name) => existing.includes(name));
  for (const name of Object.keys(given)) {
    if (existing.includes(name)) continue;
    const reason = generates ? REASONS.get(camel(name)) : undefined;
    if (reason !== undefined) throw new TypeError(`'${name}' is not taken here: ${reason}.`);
    const close = closest(name, existing);
    const meant = close === undefined ? "" : ` Did you mean '${close}'?`;
    throw new TypeError(`'${name}' is not ${what}.${meant}`);
  }
}

function closest(name: string, existing: readonly string[]): string | undefined {
  const plain = (text: string) => text.replaceAll("_", "").toLowerCase();
  const ranked = existing
    .map((each) => ({ each, distance: distance(plain(name), plain(each)) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  return best !== undefined && best.distance <= name.length / 3 ? best.each : undefined;
}

/** Fewest insertions, removals and replacements of a character (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
