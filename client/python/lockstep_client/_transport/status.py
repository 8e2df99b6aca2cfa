"""The exceptions that statuses of gRPC stand for."""

import re
from collections.abc import Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from lockstep.v1.error_reason_pb2 import ErrorReason, ItemError

from lockstep_client._transport.keywords import in_keywords, keyword
from lockstep_client.exceptions import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    FieldViolation,
    LockstepError,
    Overloaded,
    ProtocolError,
    ServiceError,
)

DOMAIN = "lockstep.dev"

# What gRPC's asyncio client says in place of the status of a call that ended while a
# request was on its way.
_LOST_RACE = "Internal error from Core"

_CONNECTING = "connections to all backends failing"

# What gRPC says, all of it, and what it means. Words of BoringSSL are part of it.
_SENTENCES: Final[dict[tuple[str, ...], str]] = {
    ("Connection refused",): "nothing listens there (connection refused).",
    ("Domain name not found",): "there is no host of that name.",
    ("WRONG_VERSION_NUMBER",): "it does not speak TLS; connect without TLS.",
    ("CERTIFICATE_VERIFY_FAILED",): (
        "its certificate is not from an authority that is trusted; name the authority with "
        "`Tls(ca=...)`, or with --tls-ca."
    ),
    ("Hostname Verification Check failed",): (
        "its certificate is for another name; give that name with `Tls(server_name=...)`."
    ),
    ("Failed to create security handshaker",): (
        "`ca`, `certificate` and `key` cannot be used; each is the text of a PEM file, and the "
        "key belongs to the certificate."
    ),
    (_CONNECTING, "Socket closed"): (
        "it ends every connection at once; it may ask for TLS, or for a certificate of the client."
    ),
    (_CONNECTING, "Connection reset"): (
        "it ends every connection at once; it may ask for TLS, or for a certificate of the client."
    ),
}

# How HTTP/2 refuses a call (REFUSED_STREAM) that the server has not looked at: this connection
# has as many as it may have. A new connection does not know yet how many these are.
_REFUSED = "RST_STREAM with error code 7"
_REFUSED_RETRY_S = 0.1

# How gRPC ends a call that the server has not looked at, as it had ended the connection before.
# Of a call that it has looked at, the text says first how the connection broke.
_TOO_LATE = re.compile(r"(Stream removed \()?GOAWAY received")

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


def overdue(peer: str, limit: str = "the timeout") -> DeadlineExceeded:
    """Builds the exception for a call that met its deadline.

    Args:
        peer: who was called.
        limit: how much time the call had.
    """
    return DeadlineExceeded(
        f"No answer from {peer} within {limit}.", code=grpc.StatusCode.DEADLINE_EXCEEDED
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
    violations = [
        FieldViolation(keyword(violation.field), in_keywords(violation.description))
        for violation in bad_request.field_violations
    ]
    return BY_REASON.get(info.reason, ServiceError)(
        "; ".join(f"{each.field}: {each.description}" for each in violations)
        or _said(status.message, info),
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=violations,
        retry_delay_s=retry_delay_s,
    )


def _said(message: str, info: ErrorInfo) -> str:
    """Returns the text of a status with the keyword of the field that it is about."""
    field = info.metadata.get("field") or info.metadata.get("feature") or ""
    if field and message.startswith(field):
        message = keyword(field) + message.removeprefix(field)
    return in_keywords(message)


def _without_reason(code: grpc.StatusCode, message: str, peer: str) -> LockstepError:
    match code:
        case grpc.StatusCode.UNAVAILABLE if _REFUSED in message:
            return Overloaded(
                f"This connection has as many calls as {peer} takes at a time.",
                code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                retry_delay_s=_REFUSED_RETRY_S,
            )
        case grpc.StatusCode.UNAVAILABLE if _TOO_LATE.match(message):
            return ConnectionFailed(
                f"Cannot reach {peer}: it has ended the connection, and not looked at this call.",
                code=code,
                retry_delay_s=0.0,
            )
        case grpc.StatusCode.UNAVAILABLE:
            return ConnectionFailed(f"Cannot reach {peer}: {_what_happened(message)}", code=code)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return overdue(peer)
        case grpc.StatusCode.CANCELLED:  # by the other side: who cancels here hears nothing of it
            return ConnectionFailed(f"The call to {peer} was broken off: {message}", code=code)
        case grpc.StatusCode.INTERNAL if message == _LOST_RACE:
            return ConnectionFailed(f"The call to {peer} ended while it was written to.", code=code)
    return ProtocolError(f"{peer} answered {code.name} without a reason: {message}", code=code)


def _what_happened(message: str) -> str:
    """Says in a sentence why nobody was reached, from what gRPC says of its last attempt."""
    for phrases, sentence in _SENTENCES.items():
        if all(phrase in message for phrase in phrases):
            return sentence
    # gRPC nests every attempt in its text; the last part is what happened.
    return message.split(": ")[-1].rstrip("]")


def _reason_name(reason: ErrorReason) -> str:
    if reason not in ErrorReason.values():
        return f"UNKNOWN_{reason}"
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
