"""Results of changes to the vocabulary."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from lockstep.v1 import vocabulary_admin_service_pb2 as admin_pb

from lockstep_client._results.reading import read
from lockstep_client._results.tokenizer import VocabularyEntry, roles
from lockstep_client._values import html
from lockstep_client._values.one_line import one_line
from lockstep_client._values.vocabulary_ref import VocabularyRef


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The tokens of a text.

    Attributes:
        ids: the ids, without the tokens of the template.
        token_bytes: what each id stands for.
    """

    ids: list[int]
    token_bytes: list[bytes]

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: admin_pb.TextTokens) -> Self:
        """Reads the wire form."""
        return read(cls, message)


@dataclass(frozen=True, slots=True)
class TextEffect:
    """How adding tokens changes the encoding of a text.

    Attributes:
        before: its tokens at the newest revision, special tokens parsed.
        after: its tokens after the change, special tokens parsed.
        changes_text: whether the encoding changes for every caller, also for callers who
            do not ask for special tokens to be parsed.
    """

    before: TextTokens
    after: TextTokens
    changes_text: bool

    @classmethod
    def from_message(cls, message: admin_pb.TextEffect) -> Self:
        """Reads the wire form."""
        return read(
            cls,
            message,
            before=TextTokens.from_message(message.before),
            after=TextTokens.from_message(message.after),
        )


@dataclass(frozen=True, slots=True)
class AddedToken:
    """The result for one token of an `add_tokens` call.

    Attributes:
        id: its id.
        existing: whether it was in the vocabulary before.
        becomes_special: whether it was there before, and the call made it special.
        previous_ids: what its text was encoded to before.
        previous_token_bytes: what each of them stands for.
        changes_text: whether adding it changes how ordinary text is encoded.
        effect: the effect on its own text; of a dry run only.
        changed_entries: some of the entries whose own text would be encoded in
            another way, for a plain token; of a dry run only.
        num_changed_entries: how many there are; of a dry run only.
    """

    id: int
    existing: bool
    becomes_special: bool
    previous_ids: list[int]
    previous_token_bytes: list[bytes]
    changes_text: bool
    effect: TextEffect | None
    changed_entries: list[VocabularyEntry]
    num_changed_entries: int

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: admin_pb.AddedTokenResult) -> Self:
        """Reads the wire form."""
        has_effect = message.HasField("effect")
        return read(
            cls,
            message,
            effect=TextEffect.from_message(message.effect) if has_effect else None,
            changed_entries=[VocabularyEntry.from_message(e) for e in message.changed_entries],
        )


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """What an `add_tokens` call did.

    Attributes:
        tokens: one per token of the call, in its order.
        vocabulary: the state after it.
        text_effects: one per text of the call, in its order; of a dry run only.
    """

    tokens: list[AddedToken]
    vocabulary: VocabularyRef
    text_effects: list[TextEffect]

    __repr__ = one_line

    @property
    def ids(self) -> list[int]:
        """The id of each token of the call."""
        return [token.id for token in self.tokens]

    @classmethod
    def from_message(cls, message: admin_pb.AddTokensResponse) -> Self:
        """Reads the wire form."""
        return cls(
            tokens=[AddedToken.from_message(result) for result in message.results],
            vocabulary=VocabularyRef.from_message(message.vocabulary),
            text_effects=[TextEffect.from_message(effect) for effect in message.text_effects],
        )


@dataclass(frozen=True, slots=True)
class ImportedRevisions:
    """What an import of the log did.

    Attributes:
        vocabulary: the newest state.
        num_revisions: revisions in the archive, revision 0 not counted.
        num_imported_revisions: how many of them were new.
        num_imported_replies: how many answers to idempotency keys were new.
    """

    vocabulary: VocabularyRef
    num_revisions: int
    num_imported_revisions: int
    num_imported_replies: int

    @classmethod
    def from_message(cls, message: admin_pb.ImportRevisionsResponse) -> Self:
        """Reads the wire form."""
        return read(cls, message, vocabulary=VocabularyRef.from_message(message.vocabulary))


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the vocabulary.

    Attributes:
        vocabulary: the state.
        parent_fingerprint: fingerprint of the state before; empty for revision 0.
        tokens: texts that it added, by id.
        special_tokens: roles that it assigned, with their ids.
        marked_tokens: texts of entries that it made special, by id.
        create_time: when it was made durable, UTC; None for revision 0.
    """

    vocabulary: VocabularyRef
    parent_fingerprint: str
    tokens: dict[int, str]
    special_tokens: dict[str, int]
    marked_tokens: dict[int, str]
    create_time: datetime | None

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """Shows what it added."""
        ref, time = self.vocabulary, self.create_time
        facts: dict[str, html.Cell] = {
            "revision": ref.revision,
            "ids": ref.size,
            "fingerprint": ref.fingerprint[:12],
            "time": "" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC",
        }
        changes: list[tuple[html.Cell, ...]] = [
            *((token_id, content, "added") for token_id, content in self.tokens.items()),
            *(
                (token_id, content, "made special")
                for token_id, content in self.marked_tokens.items()
            ),
            *((token_id, role, "role") for role, token_id in self.special_tokens.items()),
        ]
        return html.stacked([html.facts(facts), html.table(("id", "", ""), changes)])

    @classmethod
    def from_message(cls, message: admin_pb.Revision) -> Self:
        """Reads the wire form."""
        dated = message.HasField("create_time")
        return cls(
            vocabulary=VocabularyRef.from_message(message.vocabulary),
            parent_fingerprint=message.parent_fingerprint,
            tokens={new.id: new.token.content for new in message.tokens},
            special_tokens=roles(message.special_tokens),
            marked_tokens={one.id: one.token.content for one in message.marked_tokens},
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
        return read(cls, message, vocabulary=VocabularyRef.from_message(message.vocabulary))
