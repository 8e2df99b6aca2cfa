// What a caller gave, in a sentence about it.

import { inspect } from "node:util";

/** Returns a value as a program has it, on one line. */
export function shown(value: unknown): string {
  return inspect(value, { breakLength: Infinity, depth: 1, maxArrayLength: 8, maxStringLength: 60 });
}
