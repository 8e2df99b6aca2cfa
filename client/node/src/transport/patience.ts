// How long a client waits for a service that is not up yet.

import { setTimeout as sleep } from "node:timers/promises";

import { ConnectionFailed, DeadlineExceeded, LockstepError } from "../errors.js";

const PAUSE_MS = 200;

/**
 * Asks until a service answers or time is up. Throws why it has not answered: that an attempt met
 * the deadline says less than why an earlier one failed.
 *
 * @param ask asks once, within a limit in milliseconds
 * @param timeoutMs the longest time to wait, in milliseconds
 * @param signal ends the waiting
 */
export async function untilAnswered<Answer>(
  ask: (timeoutMs: number) => Promise<Answer>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Answer> {
  const deadline = Date.now() + timeoutMs;
  for (let reason: LockstepError | undefined; ; ) {
    try {
      return await ask(Math.max(deadline - Date.now(), 1));
    } catch (error) {
      if (error instanceof DeadlineExceeded && reason !== undefined) throw reason;
      const leftMs = deadline - Date.now();
      if (!(error instanceof LockstepError) || !isAway(error) || leftMs <= 0) throw error;
      reason = error;
      await pause(Math.min(error.retryDelayMs || PAUSE_MS, leftMs), signal);
    }
  }
}

/** Waits. Throws the reason of a signal that is aborted meanwhile. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch((error: unknown) => {
    signal?.throwIfAborted();
    throw error;
  });
}

function isAway(error: LockstepError): boolean {
  return error instanceof ConnectionFailed || error.code === "UNAVAILABLE";
}
