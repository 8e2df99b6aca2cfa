"""Results of changes to the vocabulary."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from lockstep.v1 import vocabulary_admin_service_pb2 as admin_pb

from lockstep_client.results.tokenizer import role_name
from lockstep_client.vocabulary_ref import VocabularyRef


@dataclass(frozen=True, slots=True)
class AddedToken:
    """What became of one token of an `add_tokens` call.

    Attributes:
        id: its id.
        existing: whether it was in the vocabulary before.
        previous_ids: what its text was encoded to before.
        changes_text: whether adding it changes how ordinary text is encoded.
    """

    id: int
    existing: bool
    previous_ids: list[int]
    changes_text: bool


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """What an `add_tokens` call did.

    Attributes:
        tokens: one per token of the call, in its order.
        vocabulary: the state after it.
    """

    tokens: list[AddedToken]
    vocabulary: VocabularyRef

    @property
    def ids(self) -> list[int]:
        """The id of each token of the call."""
        return [token.id for token in self.tokens]

    @classmethod
    def from_message(cls, message: admin_pb.AddTokensResponse) -> Self:
        """Reads the wire form."""
        return cls(
            tokens=[
                AddedToken(r.id, r.existing, list(r.previous_ids), r.changes_text)
                for r in message.results
            ],
            vocabulary=VocabularyRef.from_message(message.vocabulary),
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the vocabulary.

    Attributes:
        vocabulary: the state.
        parent_fingerprint: fingerprint of the state before; empty for revision 0.
        tokens: texts that it added, by id.
        special_tokens: roles that it assigned, with their ids.
        create_time: when it was made durable, UTC; None for revision 0.
    """

    vocabulary: VocabularyRef
    parent_fingerprint: str
    tokens: dict[int, str]
    special_tokens: dict[str, int]
    create_time: datetime | None

    @classmethod
    def from_message(cls, message: admin_pb.Revision) -> Self:
        """Reads the wire form."""
        dated = message.HasField("create_time")
        return cls(
            vocabulary=VocabularyRef.from_message(message.vocabulary),
            parent_fingerprint=message.parent_fingerprint,
            tokens={new.id: new.token.content for new in message.tokens},
            special_tokens={role_name(t.role): t.token_id for t in message.special_tokens},
            create_time=message.create_time.ToDatetime() if dated else None,
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the chain of revisions is intact.

    Attributes:
        valid: whether every fingerprint is what it should be.
        revision_count: number of revisions checked.
        first_invalid_revision: the first that is wrong; None when none is.
        vocabulary: the newest state.
    """

    valid: bool
    revision_count: int
    first_invalid_revision: int | None
    vocabulary: VocabularyRef

    @classmethod
    def from_message(cls, message: admin_pb.VerifyRevisionsResponse) -> Self:
        """Reads the wire form."""
        invalid = message.HasField("first_invalid_revision")
        return cls(
            valid=message.valid,
            revision_count=message.revision_count,
            first_invalid_revision=message.first_invalid_revision if invalid else None,
            vocabulary=VocabularyRef.from_message(message.vocabulary),
        )
