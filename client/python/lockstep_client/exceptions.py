"""What can go wrong, one class per reason.

    LockstepError
    ├── InvalidArgument           an argument is wrong; no service was asked
    ├── WrongType                 such an error that is a TypeError too
    ├── WrongValue                such an error that is a ValueError too
    ├── ConnectionFailed          no answer from the address, or the connection broke
    ├── DeadlineExceeded          no answer within the timeout
    ├── Cancelled                 the client was closed
    ├── ProtocolError             the answer is not one that a Lockstep service gives
    └── ServiceError              a service refused or failed, and says why in `reason`
        ├── InvalidField              a field is wrong; see `violations`
        ├── MalformedMessage          the bytes are not a message of the method
        ├── MessageTooLarge           the request is larger than the server's limit
        ├── TokenIdOutOfRange         an id is not in the vocabulary
        ├── ContextLengthExceeded     prompt and new tokens do not fit the context
        ├── FeatureNotImplemented     the method or feature is not offered
        ├── VocabularyMismatch        the ids belong to another vocabulary
        ├── VocabularyBehind          the replica does not have that revision yet; retry
        ├── RevisionConflict          another call changed the vocabulary first
        ├── IdempotencyKeyReused      the key was used with another request
        ├── SessionNotFound           the session is gone; open a new one
        ├── SessionOnOtherReplica     another replica has the session, and was not followed to
        ├── SessionBusy               another call is using the session; retry
        ├── PositionConflict          the session is not where the step expected it
        ├── ResponseTooLarge          the response is larger than the server's limit
        ├── Unauthenticated           credentials are missing, unknown or expired
        ├── PermissionDenied          the credentials lack the role that the call needs
        ├── QuotaExceeded             this caller has used what it may; retry
        ├── Overloaded                too much in progress; retry
        ├── KVCacheExceeded           more KV cache than the server has in total
        ├── MemoryExhausted           memory was not sufficient for a sequence; retry
        ├── Loading                   the server is not ready yet; retry
        ├── Draining                  the server is shutting down; retry elsewhere
        ├── EngineLost                the model's process ended; retry
        ├── NonFiniteLogits           the model produced NaN or infinity
        ├── NonFiniteScores           the processors made NaN or infinity
        ├── NoTokenLeft               the processors excluded every token
        ├── NoChatTemplate            the tokenizer has no chat template
        ├── ChatTemplateFailed        the template refused the messages
        ├── InternalError             a bug of the server; see its log
        ├── StoreUnavailable          the vocabulary store failed; retry
        ├── TokenExists               the token exists with other attributes
        └── SlowConsumer              the stream was not read for too long

A server newer than this client may name a reason that is not listed: it arrives
as a plain `ServiceError` with that `reason`. Errors in the arguments of a call
that need no server to be found are an `InvalidArgument`, and Python's own `TypeError`
or `ValueError` too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request.

    Attributes:
        field: the keyword, and the place in its value, for example `top_k` or `prompts[3]`.
        description: what is wrong and what would be right.
    """

    field: str
    description: str


class LockstepError(Exception):
    """Base of everything that this package raises about a call.

    Attributes:
        code: gRPC status code.
        reason: name of the `ErrorReason` without its prefix, for example
            `OVERLOADED`; empty when the failure came from no service of ours.
        metadata: every value that the message mentions, by the keys that the
            schema lists with the reason.
        violations: what is wrong with which field; empty unless the request was.
        retry_delay_s: when a retry of the same request can succeed, and None
            when the server says that it never will, or nothing.
    """

    REASON = ""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or self.REASON
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self._argument = ""  # the name of what was given, see `_calls.argument`
        self.retry_delay_s = retry_delay_s


class InvalidArgument(LockstepError):
    """An argument is wrong; no service was asked."""


class WrongType(InvalidArgument, TypeError):
    """An argument has another type, or a keyword does not exist."""


class WrongValue(InvalidArgument, ValueError):
    """An argument has a value that does not fit."""


class ConnectionFailed(LockstepError):
    """Nobody answers at the address, or the connection broke during the call."""


class DeadlineExceeded(LockstepError):
    """No answer arrived within the timeout."""


class Cancelled(LockstepError):
    """The client was closed, before the call or while it ran."""


class ProtocolError(LockstepError):
    """The answer is not one that a Lockstep service gives.

    Something else listens at the address, or stands in between.
    """


class ServiceError(LockstepError):
    """A service refused the call or failed."""


class InvalidField(ServiceError):
    """A field is missing, out of range or contradicts another. See `violations`."""

    REASON = "INVALID_FIELD"


class MalformedMessage(ServiceError):
    """The bytes received are not a message of the method."""

    REASON = "MALFORMED_MESSAGE"


class MessageTooLarge(ServiceError):
    """The request message is larger than the server's limit."""

    REASON = "MESSAGE_TOO_LARGE"


class TokenIdOutOfRange(ServiceError):
    """A token id is not in the vocabulary of the request."""

    REASON = "TOKEN_ID_OUT_OF_RANGE"


class ContextLengthExceeded(ServiceError):
    """Prompt and new tokens together exceed the model's context."""

    REASON = "CONTEXT_LENGTH_EXCEEDED"


class FeatureNotImplemented(ServiceError):
    """The method, or the feature asked for, is not offered by this server."""

    REASON = "NOT_IMPLEMENTED"


class VocabularyMismatch(ServiceError):
    """The ids belong to a vocabulary that the server does not have. Encode again."""

    REASON = "VOCABULARY_MISMATCH"


class VocabularyBehind(ServiceError):
    """The request's revision is newer than the newest one of this replica. Retry."""

    REASON = "VOCABULARY_BEHIND"


class RevisionConflict(ServiceError):
    """The change was based on a revision that is no longer the newest."""

    REASON = "REVISION_CONFLICT"


class IdempotencyKeyReused(ServiceError):
    """The idempotency key was used with another request."""

    REASON = "IDEMPOTENCY_KEY_REUSED"


class SessionNotFound(ServiceError):
    """The session does not exist any more. Open one with the tokens so far."""

    REASON = "SESSION_NOT_FOUND"


class SessionOnOtherReplica(ServiceError):
    """Another replica has the session: `metadata["replica"]`, at `metadata["address"]`.

    Calls of a session go there by themselves, unless `follow` keeps them from it.
    """

    REASON = "SESSION_ON_OTHER_REPLICA"


class SessionBusy(ServiceError):
    """Another call is using the session. Retry."""

    REASON = "SESSION_BUSY"


class PositionConflict(ServiceError):
    """The session is not at the position that the step expected."""

    REASON = "POSITION_CONFLICT"


class ResponseTooLarge(ServiceError):
    """The response would be larger than the server's limit."""

    REASON = "RESPONSE_TOO_LARGE"


class Unauthenticated(ServiceError):
    """Credentials are missing, unknown or expired, as `metadata["cause"]` says. Send a `token`."""

    REASON = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The credentials lack the role that the call needs, `metadata["role"]`."""

    REASON = "PERMISSION_DENIED"


class QuotaExceeded(ServiceError):
    """This caller has used what it may of `metadata["quota"]`, whatever is free. Retry."""

    REASON = "QUOTA_EXCEEDED"


class Overloaded(ServiceError):
    """As much is running and waiting as the server admits. Retry."""

    REASON = "OVERLOADED"


class KVCacheExceeded(ServiceError):
    """The request needs more KV cache than the server has in total."""

    REASON = "KV_CACHE_EXCEEDED"


class MemoryExhausted(ServiceError):
    """Memory was not sufficient for this sequence beside what else was running. Retry."""

    REASON = "MEMORY_EXHAUSTED"


class Loading(ServiceError):
    """The server is loading its model or tokenizer. Retry."""

    REASON = "LOADING"


class Draining(ServiceError):
    """The server is shutting down and takes no new work. Retry elsewhere."""

    REASON = "DRAINING"


class EngineLost(ServiceError):
    """The process that owns the model ended; sessions are lost. Retry."""

    REASON = "ENGINE_LOST"


class NonFiniteLogits(ServiceError):
    """The model produced logits that are not numbers."""

    REASON = "NON_FINITE_LOGITS"


class NonFiniteScores(ServiceError):
    """The processors made scores that are not numbers of logits that are."""

    REASON = "NON_FINITE_SCORES"


class NoTokenLeft(ServiceError):
    """The processors excluded every token."""

    REASON = "NO_TOKEN_LEFT"


class NoChatTemplate(ServiceError):
    """The tokenizer has no chat template."""

    REASON = "NO_CHAT_TEMPLATE"


class ChatTemplateFailed(ServiceError):
    """The chat template refused the messages or took too long."""

    REASON = "CHAT_TEMPLATE_FAILED"


class InternalError(ServiceError):
    """A bug of the server. Its log has the text under `metadata["requestId"]`."""

    REASON = "INTERNAL"


class StoreUnavailable(ServiceError):
    """The vocabulary store failed; nothing was changed. `metadata["cause"]` says why. Retry."""

    REASON = "STORE_UNAVAILABLE"


class TokenExists(ServiceError):
    """The token exists with other attributes; `metadata["attribute"]` names one."""

    REASON = "TOKEN_EXISTS"


class SlowConsumer(ServiceError):
    """The stream was not read for too long."""

    REASON = "SLOW_CONSUMER"
