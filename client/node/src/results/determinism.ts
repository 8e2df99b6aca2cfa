// How far results can be reproduced.

import type { Determinism__Output } from "../schema/lockstep/v1/Determinism.js";
import type { DeterminismLevel__Output } from "../schema/lockstep/v1/DeterminismLevel.js";
import { short, type Short } from "../values/enums.js";

/** How far a result can be reproduced. */
export interface Determinism extends Omit<Determinism__Output, "level"> {
  level: Short<DeterminismLevel__Output, "DETERMINISM_LEVEL"> | undefined;
}

/** Reads the wire form. */
export function readDeterminism(message: Determinism__Output | null): Determinism {
  const { level = "DETERMINISM_LEVEL_UNSPECIFIED", ...others } = message ?? {};
  const texts = { dtype: "", rng: "", attention: "", modelFingerprint: "", weightFormat: "" };
  return { ...texts, ...others, level: short(level, "DETERMINISM_LEVEL") };
}
