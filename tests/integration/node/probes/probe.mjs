// What every probe needs: the client of the package under test, and a way to print what it got.
//
//   node <probe>.mjs <folder of the package>

import { join } from "node:path";
import { pathToFileURL } from "node:url";

const entry = join(process.argv[2], "dist", "src", "index.js");
export const lockstep = await import(pathToFileURL(entry));

/** Opens a client of the services that the environment names. */
export function connect(options = {}) {
  const { LOCKSTEP_TOKENIZER: tokenizer, LOCKSTEP_MODEL: model } = process.env;
  return new lockstep.Lockstep({ tokenizer, model, ...options });
}

/** Makes a call that fails, and returns what its error says. */
export async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    const { name, code, reason, metadata, violations, message, retryDelayMs } = error;
    const ours = error instanceof lockstep.LockstepError;
    return { name, ours, code, reason, metadata, violations, message, retryDelayMs };
  }
}

/** Reads an asynchronous iterable to its end. */
export async function all(items) {
  const read = [];
  for await (const item of items) read.push(item);
  return read;
}

/** Prints an object of answers as JSON. */
export function print(answers) {
  console.log(
    JSON.stringify(answers, (_, value) => {
      if (typeof value === "bigint") return Number(value);
      return ArrayBuffer.isView(value) ? Array.from(value) : value;
    }),
  );
}
