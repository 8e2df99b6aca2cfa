"""Failures about vocabularies, their store and the templates of a tokenizer."""

from typing import Literal, Protocol

from rpc.errors.service_error import ServiceError

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
            f"This server does not have the request's vocabulary and never had it; {remedy}.",
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


class NoChatTemplate(ServiceError):
    """The tokenizer has no chat template."""

    def __init__(self, tokenizer_id: str) -> None:
        super().__init__(
            "The tokenizer has no chat template, as models that were not trained for chats: send "
            "text instead of messages, or put a chat_template.jinja into the model's folder.",
            tokenizerId=tokenizer_id,
        )


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

    def __init__(self, *, index: int, token_id: int, attribute: str, remedy: str) -> None:
        """Refuses a token.

        Args:
            index: of the token in the call.
            token_id: the id that it has.
            attribute: what differs.
            remedy: why it stays as it is, and what to do.
        """
        super().__init__(
            f"Token {index} exists as id {token_id} with other {attribute}; {remedy}.",
            index=index,
            tokenId=token_id,
            attribute=attribute,
        )
