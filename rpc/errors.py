"""Failures that a caller can act on. Pure Python: nothing here knows about gRPC.

    ServiceError
    ├── InvalidField              the request is wrong; never retry it as it is
    ├── MalformedMessage          the bytes are not a message of the method
    ├── MessageTooLarge           the request message is larger than is read
    ├── TokenIdOutOfRange         an id is not in the request's vocabulary
    ├── ContextLengthExceeded     prompt and new tokens do not fit the context
    ├── NotImplemented_           the method or feature is not offered
    ├── VocabularyMismatch        the ids belong to another vocabulary
    ├── VocabularyBehind          this replica does not have that revision yet; retry
    ├── RevisionConflict          another call changed the vocabulary first
    ├── IdempotencyKeyReused      the key was used with another request
    ├── SessionNotFound           the KV cache is gone; open a session again
    ├── SessionBusy               another call is using the session; retry
    ├── PositionConflict          the session is not where the step expected it
    ├── ResponseTooLarge          the response is larger than is sent
    ├── Overloaded                too much in progress; retry
    ├── KVCacheExceeded           more KV cache than the server has in total
    ├── Loading                   not yet ready; retry
    ├── Draining                  shutting down; retry elsewhere
    │   └── Paused                paused by an operator; retry
    ├── EngineLost                the model's process ended; retry
    ├── NonFiniteLogits           the model produced NaN or infinity for a row
    ├── NonFiniteScores           the processors turned finite logits into NaN or infinity
    ├── NoTokenLeft               the processors excluded every token
    ├── NoChatTemplate            the tokenizer has no chat template
    ├── ChatTemplateFailed        the template refused the messages
    ├── StoreUnavailable          the vocabulary store failed; retry
    ├── TokenExists               the token exists with other attributes
    ├── SlowConsumer              the caller did not read its stream
    └── InternalError             a bug; its text stays in the log

Anything else that escapes a servicer is a bug and reaches the caller as
`InternalError`, without its message. `status.py` holds the one table that maps
this tree to gRPC codes and `ErrorReason`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

MAX_VIOLATIONS = 7
"""Most violations that one answer names: its details have to fit the metadata that clients read."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request.

    Attributes:
        field: path of the field in the request, for example
            `generation_config.top_k` or `items[3].text`.
        description: what is wrong and what would be right. Never holds text or
            tokens of the request.
    """

    field: str
    description: str


class ServiceError(Exception):
    """Base of every error whose message may be shown to the caller.

    Keyword arguments become `ErrorInfo.metadata`, so that a client never has to
    parse the message.

    Attributes:
        metadata: every value the message mentions, as text.
        retry_delay_s: when a retry of the same request can succeed, and None
            when it never will.
    """

    def __init__(
        self, message: str, *, retry_delay_s: float | None = None, **metadata: object
    ) -> None:
        super().__init__(message)
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_delay_s = retry_delay_s


class InvalidField(ServiceError):
    """A field is missing, out of range or contradicts another."""

    def __init__(self, field: str, description: str, *more: FieldViolation) -> None:
        super().__init__(f"{field}: {description}", field=field)
        self.violations = (FieldViolation(field, description), *more)

    @classmethod
    def of(cls, violations: Sequence[FieldViolation]) -> "InvalidField":
        """Builds one error from at least one violation."""
        first, *more = violations
        return cls(first.field, first.description, *more)


class MalformedMessage(ServiceError):
    """The bytes received are not a message of the method's request type."""

    def __init__(self, method: str) -> None:
        super().__init__("The request is not a message of this method.", method=method)


class MessageTooLarge(ServiceError):
    """The request message is larger than the server reads."""

    def __init__(self, message_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The request has {message_bytes} bytes; the limit is {limit_bytes}.",
            messageBytes=message_bytes,
            limitBytes=limit_bytes,
        )


class TokenIdOutOfRange(ServiceError):
    """A token id is not in the vocabulary of the request's revision, or has no row in the model."""

    def __init__(
        self,
        field: str,
        *,
        row: int,
        index: int,
        token_id: int,
        vocabulary_size: int,
        has_row: bool = True,
    ) -> None:
        """Refuses an id.

        Args:
            field: path of the field that holds it.
            row: its row, from 0.
            index: its place in the row, from 0.
            token_id: the id.
            vocabulary_size: number of ids of the request's revision.
            has_row: False where the tokenizer knows the id and the model does not.
        """
        why = (
            f"is not in the vocabulary of {vocabulary_size} ids"
            if has_row
            else "is in the tokenizer's vocabulary, but the model has no row for it"
        )
        super().__init__(
            f"{field}: id {token_id} at row {row}, index {index} {why}.",
            field=field,
            row=row,
            index=index,
            tokenId=token_id,
            vocabularySize=vocabulary_size,
        )


class ContextLengthExceeded(ServiceError):
    """Prompt and new tokens together exceed the model's context."""

    def __init__(
        self, *, row: int, prompt_tokens: int, new_tokens: int, context_tokens: int
    ) -> None:
        super().__init__(
            f"Row {row} has {prompt_tokens} prompt tokens; with {new_tokens} new tokens it "
            f"exceeds the context of {context_tokens} tokens.",
            row=row,
            promptTokens=prompt_tokens,
            newTokens=new_tokens,
            contextTokens=context_tokens,
        )


class NotImplemented_(ServiceError):  # without the underscore it would hide the builtin
    """The method, or the feature asked for, is not offered by this server."""

    def __init__(self, feature: str, reason: str = "") -> None:
        """Names what is not offered.

        Args:
            feature: the method or the field.
            reason: why not, with a remedy, if there is more to say.
        """
        why = f": {reason}" if reason else ""
        super().__init__(f"{feature} is not offered by this server{why}.", feature=feature)


MismatchCause = Literal["another_vocabulary", "follows_nobody"]
"""Why a server does not have a vocabulary, and never will as it was started."""


class VocabularyState(Protocol):
    """What identifies a state of a vocabulary, whatever type holds it."""

    @property
    def tokenizer_id(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


class VocabularyMismatch(ServiceError):
    """The request's vocabulary is not on this server's chain."""

    def __init__(
        self,
        given: VocabularyState,
        server: VocabularyState,
        *,
        cause: MismatchCause = "another_vocabulary",
        remedy: str = "encode again",
    ) -> None:
        """Refuses a vocabulary.

        Args:
            given: the state that the request names.
            server: the server's own at that revision, or its newest.
            cause: why the server does not have it.
            remedy: what to do, and more about the cause.
        """
        super().__init__(
            f"The request's vocabulary is not one that this server has or had; {remedy}.",
            cause=cause,
            requestTokenizerId=given.tokenizer_id,
            requestRevision=given.revision,
            requestFingerprint=given.fingerprint,
            serverTokenizerId=server.tokenizer_id,
            serverRevision=server.revision,
            serverFingerprint=server.fingerprint,
        )


class VocabularyBehind(ServiceError):
    """The request's revision is newer than this replica's newest."""

    def __init__(self, *, request_revision: int, server_revision: int, reason: str = "") -> None:
        """Refuses a revision that is not here yet.

        Args:
            request_revision: the revision that the request needs.
            server_revision: the newest revision here.
            reason: why the revision is not here, unless it is merely on its way.
        """
        because = f": {reason}" if reason else ""
        super().__init__(
            f"The request needs revision {request_revision}; the newest revision of this replica "
            f"is {server_revision}{because}.",
            retry_delay_s=0.25,
            requestRevision=request_revision,
            serverRevision=server_revision,
        )


class RevisionConflict(ServiceError):
    """The change was based on a revision that is no longer the newest."""

    def __init__(self, *, expected: int, current: int) -> None:
        super().__init__(
            f"The change expects revision {expected}; the newest revision is {current}.",
            expectedRevision=expected,
            currentRevision=current,
        )


class IdempotencyKeyReused(ServiceError):
    """An idempotency key was used before with another request."""

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"The idempotency key was used before, for another request, which made revision "
            f"{revision}; use a new key.",
            revision=revision,
        )


class SessionNotFound(ServiceError):
    """The session does not exist, has expired or is not the caller's."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "The session does not exist or has ended; open a new one.", sessionId=session_id
        )


class SessionBusy(ServiceError):
    """Another call is using the session."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "Another call is using the session.", retry_delay_s=0.1, sessionId=session_id
        )


class PositionConflict(ServiceError):
    """The session is not at the position that the step expected."""

    def __init__(self, *, row: int, expected: int, current: int) -> None:
        super().__init__(
            f"Row {row} is at position {current}, not {expected}.",
            row=row,
            expectedPosition=expected,
            currentPosition=current,
        )


class ResponseTooLarge(ServiceError):
    """The response would be larger than the server sends."""

    def __init__(
        self,
        response_bytes: int,
        limit_bytes: int,
        remedy: str = "Ask for less at once.",
        *,
        at_least: bool = False,
    ) -> None:
        """Refuses a response.

        Args:
            response_bytes: size of the response.
            limit_bytes: most that the server sends.
            remedy: what to ask for instead, a sentence.
            at_least: whether building it was stopped before the full size was known.
        """
        size = f"at least {response_bytes}" if at_least else f"{response_bytes}"
        super().__init__(
            f"The response would have {size} bytes; the limit is {limit_bytes}. {remedy}",
            responseBytes=response_bytes,
            limitBytes=limit_bytes,
        )


class Overloaded(ServiceError):
    """The server is running and queueing as much as it admits."""

    def __init__(self, resource: str, limit: int, *, retry_delay_s: float) -> None:
        super().__init__(
            f"{limit} {resource.replace('_', ' ')} are in use, the most this server admits.",
            retry_delay_s=retry_delay_s,
            resource=resource,
            limit=limit,
        )


class KVCacheExceeded(ServiceError):
    """The request needs more KV cache than this server has in total."""

    def __init__(self, *, kv_tokens: int, limit_tokens: int) -> None:
        super().__init__(
            f"The request needs {kv_tokens} tokens of KV cache; the limit is {limit_tokens}.",
            kvTokens=kv_tokens,
            limitTokens=limit_tokens,
        )


class Loading(ServiceError):
    """The server is loading its model or tokenizer."""

    def __init__(self) -> None:
        super().__init__("The server is loading.", retry_delay_s=1.0)


class Draining(ServiceError):
    """The server is shutting down and takes no new work."""

    def __init__(self, message: str = "The server is shutting down.") -> None:
        super().__init__(message, retry_delay_s=1.0)


class Paused(Draining):
    """An operator has paused the server; it takes new work again when it is resumed."""

    def __init__(self) -> None:
        super().__init__("An operator has paused the server; it takes no new work until resumed.")


class EngineLost(ServiceError):
    """The process that owns the model has ended or stopped answering."""

    def __init__(self) -> None:
        super().__init__("The engine has ended; its sessions are lost.", retry_delay_s=2.0)


class NonFiniteLogits(ServiceError):
    """The model produced NaN or infinite logits for this row."""

    def __init__(self, *, row: int, position: int) -> None:
        super().__init__(
            f"The logits of row {row} at position {position} are not finite.",
            row=row,
            position=position,
        )


class NonFiniteScores(ServiceError):
    """The processors turned finite logits into scores that are NaN or infinite."""

    def __init__(self, *, row: int, position: int) -> None:
        super().__init__(
            f"The processors produce scores that are not finite for row {row} at position "
            f"{position}; use smaller biases, penalties and factors, or a higher temperature.",
            row=row,
            position=position,
        )


class NoTokenLeft(ServiceError):
    """The processors excluded every token."""

    def __init__(self, *, row: int, position: int) -> None:
        super().__init__(
            f"The processors exclude every token for row {row} at position {position}.",
            row=row,
            position=position,
        )


class NoChatTemplate(ServiceError):
    """The tokenizer has no chat template."""

    def __init__(self, tokenizer_id: str) -> None:
        super().__init__("The tokenizer has no chat template.", tokenizerId=tokenizer_id)


class ChatTemplateFailed(ServiceError):
    """The chat template refused the messages or took too long."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", field=field)


StoreCause = Literal["busy", "disk_full", "disk_error", "read_only", "damaged", "unknown"]
"""Why a store failed."""


class StoreUnavailable(ServiceError):
    """The vocabulary store failed; nothing was changed."""

    def __init__(self, cause: StoreCause = "unknown") -> None:
        super().__init__(
            f"The vocabulary store is unavailable ({cause.replace('_', ' ')}).",
            retry_delay_s=None if cause == "damaged" else 1.0,
            cause=cause,
        )


class TokenExists(ServiceError):
    """The token exists with other attributes."""

    def __init__(self, *, index: int, token_id: int, attribute: str = "") -> None:
        """Refuses a token.

        Args:
            index: of the token in the call.
            token_id: the id that it has.
            attribute: what differs about its rows; empty if the token itself differs.
        """
        differs = f"other {attribute}, which cannot be changed; omit them to use it as it is"
        super().__init__(
            f"Token {index} exists as id {token_id} with "
            f"{differs if attribute else 'other attributes'}.",
            index=index,
            tokenId=token_id,
        )


class SlowConsumer(ServiceError):
    """The caller did not read its stream for too long."""

    def __init__(self, buffered_bytes: int) -> None:
        super().__init__(
            f"The stream was not read; {buffered_bytes} bytes are waiting.",
            bufferedBytes=buffered_bytes,
        )


class InternalError(ServiceError):
    """A bug. The text of the failure is in the server's log under the id."""

    def __init__(self, request_id: str) -> None:
        super().__init__("Internal error; see the server's log.", requestId=request_id)
