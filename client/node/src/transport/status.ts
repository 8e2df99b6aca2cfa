// What the statuses of gRPC stand for.

import { status, type ServiceError as GrpcError } from "@grpc/grpc-js";
import { fromJSON, type MessageTypeDefinition } from "@grpc/proto-loader";

import {
  Cancelled,
  ConnectionFailed,
  DeadlineExceeded,
  ProtocolError,
  ServiceError,
  type FieldViolation,
  type LockstepError,
  type Reason,
} from "../errors.js";
import { inKeywords, keyword } from "../keywords.js";
import type { ItemError__Output } from "../schema/lockstep/v1/ItemError.js";

const DOMAIN = "lockstep.dev";

/**
 * How HTTP/2 refuses a call (REFUSED_STREAM) that the server has not looked at: this connection has
 * as many as it may have. A new connection does not know yet how many these are.
 */
const REFUSED = /Stream refused by server/;
const REFUSED_RETRY_MS = 100;

/** The parts of google/rpc/status.proto and error_details.proto that are read. */
const RPC = fromJSON(
  {
    nested: {
      Any: { fields: { typeUrl: { type: "string", id: 1 }, value: { type: "bytes", id: 2 } } },
      Status: { fields: { details: { rule: "repeated", type: "Any", id: 3 } } },
      ErrorInfo: {
        fields: {
          reason: { type: "string", id: 1 },
          domain: { type: "string", id: 2 },
          metadata: { rule: "repeated", type: "Entry", id: 3 },
        },
      },
      Entry: { fields: { key: { type: "string", id: 1 }, value: { type: "string", id: 2 } } },
      Duration: { fields: { seconds: { type: "int64", id: 1 }, nanos: { type: "int32", id: 2 } } },
      RetryInfo: { fields: { retryDelay: { type: "Duration", id: 1 } } },
      Violation: {
        fields: { field: { type: "string", id: 1 }, description: { type: "string", id: 2 } },
      },
      BadRequest: { fields: { violations: { rule: "repeated", type: "Violation", id: 1 } } },
    },
  },
  { defaults: true, longs: Number },
);

interface Rpc {
  Status: { details: { typeUrl: string; value: Buffer }[] };
  ErrorInfo: { reason: string; domain: string; metadata: { key: string; value: string }[] };
  RetryInfo: { retryDelay: { seconds: number; nanos: number } | null };
  BadRequest: { violations: FieldViolation[] };
}

/**
 * Translates what grpc-js raises; anything else is passed on as it is.
 *
 * @param error what it raised
 * @param peer who was called, for the message
 */
export function fromGrpc(error: unknown, peer: string): unknown {
  if (!(error instanceof Error && "code" in error && "metadata" in error)) return error;
  const { code, details, metadata } = error as GrpcError;
  const name = status[code] ?? String(code);
  const [packed] = metadata.get("grpc-status-details-bin");
  if (Buffer.isBuffer(packed)) {
    const answer = fromDetails(name, details, packed, error);
    if (answer !== undefined) return answer;
  }
  return withoutReason(name, details, peer, error);
}

/** Builds the error of one item of a call that went on for the others. */
export function fromItem(item: ItemError__Output): ServiceError {
  const reason = typeof item.reason === "string" ? item.reason : `UNKNOWN_${String(item.reason)}`;
  return new ServiceError(inKeywords(item.message), {
    code: status[item.code] ?? "UNKNOWN",
    reason: reason.replace(/^ERROR_REASON_/, "") as Reason,
    metadata: item.metadata,
  });
}

/** Builds the error of a call whose time is up. */
export function overdue(peer: string, cause?: unknown): DeadlineExceeded {
  return new DeadlineExceeded(`No answer from ${peer} within the limit.`, { code: "DEADLINE_EXCEEDED", cause });
}

/** Builds the error of a call of a client that is closed. */
export function closed(peer: string): Cancelled {
  return new Cancelled(`The call to ${peer} was cancelled: the client was closed.`, { code: "CANCELLED" });
}

function fromDetails(code: string, message: string, packed: Buffer, cause: unknown): ServiceError | undefined {
  let info: Rpc["ErrorInfo"] | undefined;
  let violations: FieldViolation[] = [];
  let retryDelayMs: number | undefined;
  for (const { typeUrl, value } of read("Status", packed).details) {
    switch (typeUrl.split("/").at(-1)) {
      case "google.rpc.ErrorInfo":
        info = read("ErrorInfo", value);
        break;
      case "google.rpc.BadRequest":
        violations = read("BadRequest", value).violations.map(({ field, description }) => ({
          field: keyword(field),
          description: inKeywords(description),
        }));
        break;
      case "google.rpc.RetryInfo": {
        const { seconds, nanos } = read("RetryInfo", value).retryDelay ?? { seconds: 0, nanos: 0 };
        retryDelayMs = seconds * 1000 + nanos / 1e6;
      }
    }
  }
  if (info?.domain !== DOMAIN) return undefined;
  const metadata = Object.fromEntries(info.metadata.map(({ key, value }) => [key, value]));
  const reason = info.reason as Reason;
  const wrong = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
  return new ServiceError(wrong || said(message, metadata), { code, reason, metadata, violations, retryDelayMs, cause });
}

/** Returns the text of a status with the keyword of the field that it is about. */
function said(message: string, { field, feature = "" }: Record<string, string>): string {
  const path = field || feature;
  const rest = path && message.startsWith(path) ? keyword(path) + message.slice(path.length) : message;
  return inKeywords(rest);
}

function withoutReason(code: string, message: string, peer: string, cause: unknown): LockstepError {
  if (code === "UNAVAILABLE" && REFUSED.test(message)) {
    const sentence = `This connection has as many calls as ${peer} takes at a time.`;
    const overloaded = { code: "RESOURCE_EXHAUSTED", reason: "OVERLOADED", retryDelayMs: REFUSED_RETRY_MS } as const;
    return new ServiceError(sentence, { ...overloaded, cause });
  }
  switch (code) {
    case "UNAVAILABLE":
      return new ConnectionFailed(`Cannot reach ${peer}: ${unreachable(message)}`, { code, cause });
    case "DEADLINE_EXCEEDED":
      return overdue(peer, cause);
    case "CANCELLED": // by the other side: who cancels here hears nothing of it
      return new ConnectionFailed(`The call to ${peer} was broken off: ${message}`, { code, cause });
    default:
      return new ProtocolError(`${peer} answered ${code} without a reason: ${message}`, { code, cause });
  }
}

/** What grpc-js says in words of Node.js and OpenSSL, and what it means. */
const CONNECTION_FAULTS: readonly [RegExp, string][] = [
  [/^null$/, "nobody answers there. Is the service running?"],
  [/ECONNREFUSED/, "nothing listens there (connection refused). Is the service running?"],
  [/ENOTFOUND|EAI_AGAIN|Name resolution failed/, "there is no host of this name."],
  [/wrong version number|EPROTO|packet length too long/, "it does not speak TLS. Leave out `tls`, or start it with TLS."],
  [/ECONNRESET|socket hang up|Connection dropped/, "the connection broke. Does it expect `tls`?"],
];

function unreachable(message: string): string {
  const [, last = message] = /^.*Last error: (?:Error: )?(.*?)\.?(?: Resolution note.*)?$/s.exec(message) ?? [];
  const known = CONNECTION_FAULTS.find(([pattern]) => pattern.test(last));
  return known === undefined ? last : known[1];
}

function read<Name extends keyof Rpc>(type: Name, bytes: Buffer): Rpc[Name] {
  return (RPC[type] as MessageTypeDefinition<object, object>).deserialize(bytes) as Rpc[Name];
}
