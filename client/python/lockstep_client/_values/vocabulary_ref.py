"""The identity of one state of a vocabulary."""

from dataclasses import dataclass
from typing import Self

from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client._values.one_line import one_line
from lockstep_client.exceptions import WrongType


@dataclass(frozen=True, slots=True)
class VocabularyRef:
    """Names one state of one vocabulary. It travels with ids from service to service.

    Attributes:
        tokenizer_id: name of the tokenizer.
        revision: number of the state; every change adds one.
        fingerprint: SHA-256 of the chain of changes, hexadecimal.
        size: number of ids.
    """

    tokenizer_id: str
    revision: int
    fingerprint: str
    size: int

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: vocabulary_pb.VocabularyRef) -> Self:
        """Reads the wire form."""
        return cls(message.tokenizer_id, message.revision, message.fingerprint, message.size)

    def to_message(self) -> vocabulary_pb.VocabularyRef:
        """Builds the wire form."""
        return vocabulary_pb.VocabularyRef(
            tokenizer_id=self.tokenizer_id,
            revision=self.revision,
            fingerprint=self.fingerprint,
            size=self.size,
        )


def message(ref: VocabularyRef | None) -> vocabulary_pb.VocabularyRef | None:
    """Builds the wire form of a reference; None stays unset.

    Raises:
        InvalidArgument: it has another form.
    """
    if not isinstance(ref, VocabularyRef | None):
        raise WrongType(f"vocabulary is a VocabularyRef, such as batch.vocabulary, not {ref!r}.")
    return None if ref is None else ref.to_message()
