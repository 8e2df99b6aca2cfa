"""The exceptions that statuses of gRPC stand for."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from lockstep.v1.error_reason_pb2 import ErrorReason, ItemError

from lockstep_client.exceptions import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    FieldViolation,
    LockstepError,
    ProtocolError,
    ServiceError,
)

DOMAIN = "lockstep.dev"

# What gRPC's asyncio client says in place of the status of a call that ended while a
# request was on its way.
_LOST_RACE = "Internal error from Core"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

BY_REASON: dict[str, type[ServiceError]] = {
    subclass.REASON: subclass for subclass in ServiceError.__subclasses__()
}


def from_rpc_error(error: grpc.RpcError, peer: str) -> LockstepError:
    """Translates a failed call, of the blocking or the asyncio API alike.

    Args:
        error: what grpcio raised.
        peer: who was called, for the message, for example
            `the tokenizer service at localhost:50051`.
    """
    trailing: Any = error.trailing_metadata() or ()
    return from_status(error.code(), error.details() or "", trailing, peer)


def from_status(
    code: grpc.StatusCode,
    message: str,
    trailing_metadata: Iterable[tuple[str, str | bytes]],
    peer: str,
) -> LockstepError:
    """Builds the exception for a status.

    Args:
        code: canonical code.
        message: text of the status.
        trailing_metadata: pairs; `grpc-status-details-bin` holds the details.
        peer: who was called, for the message.
    """
    for key, value in trailing_metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                details = Status.FromString(value)
            except DecodeError:
                break
            if (error := _from_details(code, details)) is not None:
                return error
    return _without_reason(code, message, peer)


def overdue(peer: str) -> DeadlineExceeded:
    """Builds the exception for a call that met its deadline; `peer` was called."""
    return DeadlineExceeded(
        f"No answer from {peer} within the timeout.", code=grpc.StatusCode.DEADLINE_EXCEEDED
    )


def closed(peer: str) -> Cancelled:
    """Builds the exception for a call of a client that is closed; `peer` was called."""
    return Cancelled(
        f"The call to {peer} was cancelled: the client was closed.",
        code=grpc.StatusCode.CANCELLED,
    )


def from_item_error(item: ItemError) -> ServiceError:
    """Builds the exception for one item of a call that went on for the others."""
    reason = _reason_name(item.reason)
    return BY_REASON.get(reason, ServiceError)(
        item.message,
        code=_CODES.get(item.code, grpc.StatusCode.UNKNOWN),
        reason=reason,
        metadata=item.metadata,
    )


def _from_details(code: grpc.StatusCode, status: Status) -> ServiceError | None:
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    retry_delay_s = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_delay_s = retry.retry_delay.ToMilliseconds() / 1000
        elif not detail.Unpack(info):
            detail.Unpack(bad_request)
    if info.domain != DOMAIN:
        return None
    return BY_REASON.get(info.reason, ServiceError)(
        status.message,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=(FieldViolation(v.field, v.description) for v in bad_request.field_violations),
        retry_delay_s=retry_delay_s,
    )


def _without_reason(code: grpc.StatusCode, message: str, peer: str) -> LockstepError:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            # gRPC nests every attempt in its text; the last part is what happened.
            return ConnectionFailed(f"Cannot reach {peer}: {message.split(': ')[-1]}", code=code)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return overdue(peer)
        case grpc.StatusCode.CANCELLED:  # by the other side: who cancels here hears nothing of it
            return ConnectionFailed(f"The call to {peer} was broken off: {message}", code=code)
        case grpc.StatusCode.INTERNAL if message == _LOST_RACE:
            return ConnectionFailed(f"The call to {peer} ended while it was written to.", code=code)
    return ProtocolError(f"{peer} answered {code.name} without a reason: {message}", code=code)


def _reason_name(reason: ErrorReason) -> str:
    if reason not in ErrorReason.values():
        return f"UNKNOWN_{reason}"
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
