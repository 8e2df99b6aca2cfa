// What a failed call says about itself.

import type { ServiceError } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import type { MessageTypeDefinition } from "@grpc/proto-loader";
import { fromJSON } from "@grpc/proto-loader";

const DOMAIN = "lockstep.dev";

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
    },
  },
  { defaults: true, longs: Number },
);

interface Status {
  details: { typeUrl: string; value: Buffer }[];
}

interface ErrorInfo {
  reason: string;
  domain: string;
  metadata: { key: string; value: string }[];
}

interface RetryInfo {
  retryDelay: { seconds: number; nanos: number } | null;
}

/** A call failed. */
export class LockstepError extends Error {
  override readonly name = "LockstepError";

  /**
   * @param message a sentence for people
   * @param code gRPC status code, for example `RESOURCE_EXHAUSTED`
   * @param reason `ErrorReason` without its prefix, for example `OVERLOADED`;
   *   empty when the failure came from no service of ours
   * @param metadata every value that the message mentions
   * @param retryDelayMs when a retry can succeed; undefined when it never will
   * @param cause what grpc-js raised
   */
  constructor(
    message: string,
    readonly code: string,
    readonly reason: string,
    readonly metadata: Readonly<Record<string, string>>,
    readonly retryDelayMs: number | undefined,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/** Translates what grpc-js raises; anything else is passed on as it is. */
export function translate(error: unknown): unknown {
  if (!isServiceError(error)) return error;
  let info: ErrorInfo = { reason: "", domain: "", metadata: [] };
  let retryDelayMs: number | undefined;
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (Buffer.isBuffer(packed)) {
    for (const detail of read<Status>("Status", packed).details) {
      if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
        info = read<ErrorInfo>("ErrorInfo", detail.value);
      } else if (detail.typeUrl.endsWith("/google.rpc.RetryInfo")) {
        const delay = read<RetryInfo>("RetryInfo", detail.value).retryDelay;
        retryDelayMs = delay ? delay.seconds * 1000 + delay.nanos / 1e6 : 0;
      }
    }
  }
  const ours = info.domain === DOMAIN;
  return new LockstepError(
    error.details,
    status[error.code] ?? String(error.code),
    ours ? info.reason : "",
    ours ? Object.fromEntries(info.metadata.map(({ key, value }) => [key, value])) : {},
    retryDelayMs,
    error,
  );
}

function read<T>(type: string, bytes: Buffer): T {
  const definition = RPC[type] as MessageTypeDefinition<object, object>;
  return definition.deserialize(bytes) as T;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}
