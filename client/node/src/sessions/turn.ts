// The time that one use of a session has.

import type { ServiceError } from "../errors.js";
import { timeLeft } from "../rows/rowCall.js";
import type { CallOptions } from "../transport/endpoint.js";

const BUSY_LIMIT_MS = 5_000;
const BUSY_PAUSE_MS = 100;

/**
 * One use of a session: waiting until a call that was left is over, following the session to its
 * replica, opening it again and the call itself share one limit.
 */
export class Turn {
  readonly #left: () => number | null;
  readonly #patientUntil: number;

  /**
   * @param names options of its calls but their limit
   * @param timeoutMs of all of it; null for no limit
   */
  constructor(
    private readonly names: CallOptions,
    timeoutMs: number | null,
  ) {
    this.#left = timeLeft(timeoutMs);
    this.#patientUntil = Date.now() + Math.min(BUSY_LIMIT_MS, timeoutMs ?? BUSY_LIMIT_MS);
  }

  /** The options of its next call, which has the time that is left. */
  get options(): CallOptions & { timeoutMs: number | null } {
    return { ...this.names, timeoutMs: this.#left() };
  }

  /** Returns the time to wait for a busy session. Throws the error once no time is left. */
  pauseMs(error: ServiceError): number {
    const pauseMs = error.retryDelayMs ?? BUSY_PAUSE_MS;
    if (Date.now() + pauseMs > this.#patientUntil) throw error;
    return pauseMs;
  }
}
