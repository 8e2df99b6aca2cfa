// Whether and when a failed call is made again: the rules of the Python client.
//
// grpc-js makes a second attempt by itself of a call that no server has looked at (a stream that
// was refused, for example because the server was about to end the connection).

import { ConnectionFailed, DeadlineExceeded, LockstepError, ServiceError } from "../errors.js";
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

/** So long at most a client does not ask a service again that refuses everything. */
const LONGEST_SILENCE_MS = 1_000;

/**
 * Says whether a failure tells that a service has too much to do, or takes nothing. A call may wait
 * for its session or its revision, or for room on its own connection.
 */
function isLoad({ reason, metadata }: LockstepError): boolean {
  if (reason === "OVERLOADED") return Object.keys(metadata).length > 0;
  return reason !== "SESSION_BUSY" && reason !== "VOCABULARY_BEHIND";
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
 * Ends repetition while most calls of a connection fail: it would add to the load. What a service
 * refuses and says when to come back is a failure only if it is refused again then. So callers that
 * find room when their turn comes are never throttled, and those of a service that refuses
 * everything soon make one attempt of each call, and fewer where they call again at once.
 */
export class Throttle {
  readonly #most: number;
  #tokens: number;
  readonly #refusals = new Map<string, { error: LockstepError; until: number }>();

  /** @param retries as many attempts one call can make even if all of them fail */
  constructor(retries: number) {
    this.#most = Math.max(MAX_TOKENS, 2 * (retries + 1));
    this.#tokens = this.#most;
  }

  /** Counts a call that was answered. */
  succeed(): void {
    this.#tokens = Math.min(this.#tokens + TOKEN_RATIO, this.#most);
  }

  /** Takes a failure that may pass, counted or not, and says whether to try again. */
  fail(counts: boolean): boolean {
    if (counts) this.#tokens = Math.max(this.#tokens - 1, 0);
    return this.#isOpen;
  }

  /**
   * Says whether a method may be called. Throws how it was last refused where nothing is repeated
   * and the time that the service has stated has not come.
   */
  check(path: string): void {
    const { error, until = 0 } = this.#refusals.get(path) ?? {};
    if (error === undefined || this.#isOpen || Date.now() >= until) return;
    throw new ServiceError(error.message, error);
  }

  /** Takes how an attempt of a method has failed. */
  note(path: string, error: unknown): void {
    if (!(error instanceof LockstepError) || error.retryDelayMs === undefined || !isLoad(error)) return;
    const until = Date.now() + Math.min(error.retryDelayMs, LONGEST_SILENCE_MS);
    this.#refusals.set(path, { error, until });
  }

  get #isOpen(): boolean {
    return this.#tokens > this.#most / 2;
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
    const paced = error.retryDelayMs !== undefined && this.#failed === 1;
    const allowed = this.throttle.fail(!paced && isLoad(error));
    const pauseMs = this.#pauseMs(error.retryDelayMs);
    const late = Date.now() + pauseMs >= this.deadline;
    if (!allowed || this.#failed > this.retries || late) throw error;
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
