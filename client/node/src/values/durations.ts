// Durations of the wire as numbers of seconds.

import type { Duration__Output } from "../schema/google/protobuf/Duration.js";

/** Reads the wire form; one that is missing is 0. */
export function seconds(duration: Duration__Output | null | undefined): number {
  return duration ? Number(duration.seconds) + duration.nanos / 1e9 : 0;
}
