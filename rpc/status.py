"""The one table from errors to gRPC codes and reasons, and its two readers."""

from collections.abc import Sequence

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
    errors.SessionOnOtherReplica: (code_pb2.FAILED_PRECONDITION, "SESSION_ON_OTHER_REPLICA"),
    errors.SessionBusy: (code_pb2.ABORTED, "SESSION_BUSY"),
    errors.PositionConflict: (code_pb2.ABORTED, "POSITION_CONFLICT"),
    errors.ResponseTooLarge: (code_pb2.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"),
    errors.Overloaded: (code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.KVCacheExceeded: (code_pb2.RESOURCE_EXHAUSTED, "KV_CACHE_EXCEEDED"),
    errors.MemoryExhausted: (code_pb2.RESOURCE_EXHAUSTED, "MEMORY_EXHAUSTED"),
    errors.Loading: (code_pb2.UNAVAILABLE, "LOADING"),
    errors.Draining: (code_pb2.UNAVAILABLE, "DRAINING"),
    errors.EngineLost: (code_pb2.UNAVAILABLE, "ENGINE_LOST"),
    errors.NonFiniteLogits: (code_pb2.INTERNAL, "NON_FINITE_LOGITS"),
    errors.NonFiniteScores: (code_pb2.FAILED_PRECONDITION, "NON_FINITE_SCORES"),
    errors.NoTokenLeft: (code_pb2.FAILED_PRECONDITION, "NO_TOKEN_LEFT"),
    errors.NoChatTemplate: (code_pb2.FAILED_PRECONDITION, "NO_CHAT_TEMPLATE"),
    errors.ChatTemplateFailed: (code_pb2.INVALID_ARGUMENT, "CHAT_TEMPLATE_FAILED"),
    errors.InternalError: (code_pb2.INTERNAL, "INTERNAL"),
    errors.StoreUnavailable: (code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.TokenExists: (code_pb2.ALREADY_EXISTS, "TOKEN_EXISTS"),
    errors.SlowConsumer: (code_pb2.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
    errors.Unauthenticated: (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDenied: (code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.QuotaExceeded: (code_pb2.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
}


# Details travel in trailing metadata, of which a client reads 8 KiB by default and
# drops the whole status when there is more.
MAX_TEXT_BYTES = 300


def from_error(error: errors.ServiceError) -> Status:
    """Builds the status: `ErrorInfo` always, the other details where they apply.

    Long texts are cut, and so is a long list of violations, so that the status
    always reaches the caller.
    """
    code, reason = _row(error)
    status = Status(code=code, message=_cut(str(error)))
    _attach(status, ErrorInfo(reason=reason, domain=DOMAIN, metadata=_metadata(error)))
    if isinstance(error, errors.InvalidField):
        _attach(status, _bad_request(error.violations))
    if error.retry_delay_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_delay_s * 1000))
        _attach(status, RetryInfo(retry_delay=delay))
    return status


def item_error(error: errors.ServiceError) -> ItemError:
    """Builds the in-band form, for one item of a call that goes on."""
    code, reason = _row(error)
    return ItemError(
        code=code,
        reason=f"ERROR_REASON_{reason}",
        message=_cut(str(error)),
        metadata=_metadata(error),
    )


def reason(error: errors.ServiceError) -> str:
    """Returns the `ErrorReason` of an error, without its prefix."""
    return _row(error)[1]


def _row(error: errors.ServiceError) -> tuple[int, str]:
    """Finds the row of the error's class, or of the nearest base that has one."""
    rows = (TABLE[base] for base in type(error).__mro__ if base in TABLE)
    return next(rows, TABLE[errors.InternalError])


def _bad_request(violations: Sequence[errors.FieldViolation]) -> BadRequest:
    shown = [
        BadRequest.FieldViolation(field=_cut(each.field), description=_cut(each.description))
        for each in violations[: errors.MAX_VIOLATIONS]
    ]
    return BadRequest(field_violations=shown)


def _metadata(error: errors.ServiceError) -> dict[str, str]:
    """Returns what is told about an error. Names of the request are among it."""
    return {key: _cut(_printable(value)) for key, value in error.metadata.items()}


def _printable(text: str) -> str:
    """Escapes what would change how others see a line that the text is part of."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _cut(text: str) -> str:
    data = text.encode(errors="replace")
    if len(data) > MAX_TEXT_BYTES:
        data = data[: MAX_TEXT_BYTES - 3] + b"..."
    return data.decode(errors="ignore")


def _attach(status: Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)
