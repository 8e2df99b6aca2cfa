"""The one table from errors to gRPC codes and reasons, and its two readers."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from lockstep.v1.error_reason_pb2 import ItemError

from rpc import errors

DOMAIN = "lockstep.dev"

# One row per class: canonical code, and the `ErrorReason` without its prefix.
# tests/unit/rpc/test_status.py compares both columns with the schema.
TABLE: dict[type[errors.ServiceError], tuple[int, str]] = {
    errors.InvalidField: (code_pb2.INVALID_ARGUMENT, "INVALID_FIELD"),
    errors.MalformedMessage: (code_pb2.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
    errors.MessageTooLarge: (code_pb2.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
    errors.TokenIdOutOfRange: (code_pb2.INVALID_ARGUMENT, "TOKEN_ID_OUT_OF_RANGE"),
    errors.ContextLengthExceeded: (code_pb2.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
    errors.NotImplemented_: (code_pb2.UNIMPLEMENTED, "NOT_IMPLEMENTED"),
    errors.VocabularyMismatch: (code_pb2.FAILED_PRECONDITION, "VOCABULARY_MISMATCH"),
    errors.VocabularyBehind: (code_pb2.UNAVAILABLE, "VOCABULARY_BEHIND"),
    errors.RevisionConflict: (code_pb2.ABORTED, "REVISION_CONFLICT"),
    errors.IdempotencyKeyReused: (code_pb2.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED"),
    errors.SessionNotFound: (code_pb2.NOT_FOUND, "SESSION_NOT_FOUND"),
    errors.SessionBusy: (code_pb2.ABORTED, "SESSION_BUSY"),
    errors.PositionConflict: (code_pb2.ABORTED, "POSITION_CONFLICT"),
    errors.ResponseTooLarge: (code_pb2.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"),
    errors.Overloaded: (code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.KVCacheExceeded: (code_pb2.RESOURCE_EXHAUSTED, "KV_CACHE_EXCEEDED"),
    errors.Loading: (code_pb2.UNAVAILABLE, "LOADING"),
    errors.Draining: (code_pb2.UNAVAILABLE, "DRAINING"),
    errors.EngineLost: (code_pb2.UNAVAILABLE, "ENGINE_LOST"),
    errors.NonFiniteLogits: (code_pb2.INTERNAL, "NON_FINITE_LOGITS"),
    errors.NoTokenLeft: (code_pb2.FAILED_PRECONDITION, "NO_TOKEN_LEFT"),
    errors.NoChatTemplate: (code_pb2.FAILED_PRECONDITION, "NO_CHAT_TEMPLATE"),
    errors.ChatTemplateFailed: (code_pb2.INVALID_ARGUMENT, "CHAT_TEMPLATE_FAILED"),
    errors.InternalError: (code_pb2.INTERNAL, "INTERNAL"),
    errors.StoreUnavailable: (code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.TokenExists: (code_pb2.ALREADY_EXISTS, "TOKEN_EXISTS"),
    errors.SlowConsumer: (code_pb2.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
}


def from_error(error: errors.ServiceError) -> Status:
    """Builds the status: `ErrorInfo` always, the other details where they apply."""
    code, reason = TABLE[type(error)]
    status = Status(code=code, message=str(error))
    _attach(status, ErrorInfo(reason=reason, domain=DOMAIN, metadata=error.metadata))
    if isinstance(error, errors.InvalidField):
        _attach(
            status,
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations
                ]
            ),
        )
    if error.retry_delay_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_delay_s * 1000))
        _attach(status, RetryInfo(retry_delay=delay))
    return status


def item_error(error: errors.ServiceError) -> ItemError:
    """Builds the in-band form, for one item of a call that goes on."""
    code, reason = TABLE[type(error)]
    return ItemError(
        code=code,
        reason=f"ERROR_REASON_{reason}",
        message=str(error),
        metadata=error.metadata,
    )


def _attach(status: Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)
