// What can go wrong with a call.
//
//   LockstepError
//   ├── ConnectionFailed   no answer from the address, or the connection broke
//   ├── DeadlineExceeded   no answer within the limit
//   ├── Cancelled          the client or the stream was closed
//   ├── ProtocolError      the answer is not one that a Lockstep service gives
//   └── ServiceError       a service refused or failed, and says why in `reason`
//
// Errors in the arguments of a call that need no service to be found are TypeErrors.

import type { ErrorReason__Output } from "./schema/lockstep/v1/ErrorReason.js";
import type { Short } from "./values/enums.js";

/** Why a service refused or failed, as the schema names it: `OVERLOADED`, `INVALID_FIELD`, ... */
export type Reason = Uppercase<Short<ErrorReason__Output, "ERROR_REASON">>;

/** One thing that is wrong with a request. */
export interface FieldViolation {
  /** The keyword, and the place in its value, for example `topK` or `prompts[3]`. */
  field: string;
  /** What is wrong and what would be right. */
  description: string;
}

/** What is known about a failure beside its sentence. */
export interface Details {
  code?: string;
  reason?: Reason | "";
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly FieldViolation[];
  retryDelayMs?: number | undefined;
  cause?: unknown;
}

/** A call failed. Base of everything that this package throws about a call. */
export class LockstepError extends Error {
  override readonly name: string = "LockstepError";
  /** Name of the gRPC status code, for example `RESOURCE_EXHAUSTED`. */
  readonly code: string;
  /** Why, for programs; empty when the failure came from no service of ours. */
  readonly reason: Reason | "";
  /** Every value that the message mentions, by the keys that the schema lists with the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** What is wrong with which field; empty unless the request was. */
  readonly violations: readonly FieldViolation[];
  /** When a retry of the same request can succeed; undefined when the service says nothing. */
  readonly retryDelayMs: number | undefined;

  constructor(message: string, details: Details = {}) {
    super(message, { cause: details.cause });
    this.code = details.code ?? "UNKNOWN";
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryDelayMs = details.retryDelayMs;
  }
}

/** Nobody answers at the address, or the connection broke during the call. */
export class ConnectionFailed extends LockstepError {
  override readonly name = "ConnectionFailed";
}

/** No answer arrived within the limit. */
export class DeadlineExceeded extends LockstepError {
  override readonly name = "DeadlineExceeded";
}

/** The client or the stream was closed, before the call or while it ran. */
export class Cancelled extends LockstepError {
  override readonly name = "Cancelled";
}

/**
 * The answer is not one that a Lockstep service gives: something else listens at the address, or
 * stands in between.
 */
export class ProtocolError extends LockstepError {
  override readonly name = "ProtocolError";
}

/** A service refused the call or failed; `reason` says why. */
export class ServiceError extends LockstepError {
  override readonly name = "ServiceError";
}
