// Whether and when a failed call is made again: the rules of the Python client.
//
// grpc-js makes a second attempt by itself of a call that no server has looked at (a stream that
// was refused, for example because the server was about to end the connection).

import { ConnectionFailed, DeadlineExceeded, LockstepError } from "../errors.js";

import { POLICY, SERVICE_CONFIG } from "./serviceConfig.js";

const INITIAL_BACKOFF_MS = milliseconds(POLICY.initialBackoff);
const MAX_BACKOFF_MS = milliseconds(POLICY.maxBackoff);
const BACKOFF_MULTIPLIER = POLICY.backoffMultiplier;
const BACKOFF_JITTER = 0.2;
const { maxTokens: MAX_TOKENS, tokenRatio: TOKEN_RATIO } = SERVICE_CONFIG.retryThrottling;

/**
 * Methods whose repetition changes nothing, as `/package.Service/Method`. `AddTokens` and
 * `SetSpecialTokens` are among them because this client always sends an idempotency key, and
 * `Generate` because nothing of a failed attempt remains. Session steps are not: a step that was
 * applied and whose answer was lost must be seen by the caller.
 */
const IDEMPOTENT_METHODS: ReadonlySet<string> = new Set(
  SERVICE_CONFIG.methodConfig.flatMap(({ name }) => name.map(({ service, method }) => `/${service}/${method}`)),
);

/** Says whether a method may be called again; `path` is for example `/lockstep.v1.ModelService/Score`. */
export function isIdempotent(path: string): boolean {
  return IDEMPOTENT_METHODS.has(path);
}

/** Says whether the same call can succeed later: no answer came, or one that says when. */
export function mayPass(error: LockstepError): boolean {
  return error instanceof ConnectionFailed || error.retryDelayMs !== undefined;
}

/** What a service says before it has begun with a call: any method may be called again. */
const REFUSALS: readonly string[] = [
  "LOADING", "OVERLOADED", "QUOTA_EXCEEDED", "SESSION_BUSY", "VOCABULARY_BEHIND",
];

/**
 * Ends repetition while most calls of a connection find nobody: it would add to the load. A service
 * that states when to come back paces its callers itself, and is not counted.
 */
export class Throttle {
  #tokens = MAX_TOKENS;

  /** Counts a call that was answered. */
  succeed(): void {
    this.#tokens = Math.min(this.#tokens + TOKEN_RATIO, MAX_TOKENS);
  }

  /** Counts a failure that may pass, and says whether to try again. */
  fail(): boolean {
    this.#tokens = Math.max(this.#tokens - 1, 0);
    return this.#tokens > MAX_TOKENS / 2;
  }
}

/** The attempts of one call, all within its limit. */
export class Attempts {
  #failed = 0;
  #reason: LockstepError | undefined;

  /**
   * @param throttle the connection's
   * @param idempotent whether repetition changes nothing; otherwise there is another attempt only
   *   after one that the service has refused before it began
   * @param retries most attempts after the first
   * @param deadline of all of them together, in milliseconds as of `Date.now`
   */
  constructor(
    private readonly throttle: Throttle,
    private readonly idempotent: boolean,
    private readonly retries: number,
    readonly deadline: number,
  ) {}

  /** Takes that the call is answered, or has begun to be. */
  succeed(): void {
    this.throttle.succeed();
  }

  /**
   * Returns the time to wait before the next attempt. Throws why the call has failed where it is
   * not made again: waiting does not help, or takes longer than the time left.
   */
  pauseMs(error: unknown): number {
    if (!(error instanceof LockstepError)) throw error;
    // That an attempt met the deadline says less than why an earlier one failed.
    if (error instanceof DeadlineExceeded && this.#reason !== undefined) throw this.#reason;
    const harmless = this.idempotent || REFUSALS.includes(error.reason);
    if (!mayPass(error) || !harmless) throw error;
    this.#failed += 1;
    this.#reason = error;
    const paced = error.retryDelayMs !== undefined || this.throttle.fail();
    const pauseMs = this.#pauseMs(error.retryDelayMs);
    const late = Date.now() + pauseMs >= this.deadline;
    if (!paced || this.#failed > this.retries || late) throw error;
    return pauseMs;
  }

  /** Returns the backoff, or the time that the service states where that is longer. */
  #pauseMs(statedMs = 0): number {
    const backoffMs = Math.min(INITIAL_BACKOFF_MS * BACKOFF_MULTIPLIER ** (this.#failed - 1), MAX_BACKOFF_MS);
    const jitter = (from: number) => from + (1 + BACKOFF_JITTER - from) * Math.random();
    return Math.max(backoffMs * jitter(1 - BACKOFF_JITTER), statedMs * jitter(1));
  }
}

function milliseconds(duration: string): number {
  return Number(duration.replace(/s$/, "")) * 1000;
}
