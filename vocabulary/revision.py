"""The values that describe a vocabulary and how it grows. All are immutable."""

import re
from dataclasses import dataclass
from typing import Literal

TOKENIZER_ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

Role = Literal["bos", "eos", "pad", "unk", "sep", "cls", "mask"]
"""What a special token can be for. The names are Hugging Face's, without `_token`."""

Initialization = Literal["mean_of_pieces", "mean", "copy", "zero", "values"]
"""How the embedding rows of a new id get their values."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One state of one vocabulary.

    Attributes:
        tokenizer_id: the name its operator gave the tokenizer.
        revision: 0 for the vocabulary as loaded; every change adds one.
        fingerprint: hash of the chain of changes, lower-case hexadecimal.
        size: number of ids; every id is in [0, size).
    """

    tokenizer_id: str
    revision: int
    fingerprint: str
    size: int

    def is_meant_by(self, tokenizer_id: str, fingerprint: str) -> bool:
        """Says whether a reference to this revision means this state.

        Its fingerprint decides. One without a fingerprint is compared by the name of its
        tokenizer, one without either by its revision alone. A state without a fingerprint
        (a checkpoint without a tokenizer) is not compared.
        """
        if not self.fingerprint:
            return True
        if fingerprint:
            return fingerprint == self.fingerprint
        return tokenizer_id in ("", self.tokenizer_id)

    def described(self) -> dict[str, str]:
        """Returns the state as text, by the names under which health reports it."""
        return {
            "lockstep-vocabulary-tokenizer-id": self.tokenizer_id,
            "lockstep-vocabulary-revision": str(self.revision),
            "lockstep-vocabulary-fingerprint": self.fingerprint,
            "lockstep-vocabulary-size": str(self.size),
        }


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that text is matched against before the model of the tokenizer sees it.

    Attributes:
        content: the text.
        special: whether it is a control token.
        single_word: whether it matches whole words only.
        lstrip: whether the match swallows white space to its left.
        rstrip: whether the match swallows white space to its right.
        normalized: whether the text is normalized before matching.
    """

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token and what the model needs to know about it.

    Attributes:
        id: the id it received.
        token: the token.
        previous_ids: what its text was encoded to at the revision before.
        generable: whether the model may generate it.
        initialization: how its embedding rows get their values.
        copy_token_id: the id whose rows are copied, for `copy`.
        input_values: `[H]` float32, little-endian, for `values`.
        output_values: `[H]` float32, little-endian; empty means the input values.
    """

    id: int
    token: AddedToken
    previous_ids: tuple[int, ...] = ()
    generable: bool = False
    initialization: Initialization = "mean_of_pieces"
    copy_token_id: int | None = None
    input_values: bytes = b""
    output_values: bytes = b""


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A role given to an id."""

    role: Role
    token_id: int


@dataclass(frozen=True, slots=True)
class MarkedToken:
    """An entry that was there and became special. It keeps its id and its rows.

    Attributes:
        id: its id.
        token: its text and the flags that it has from now on.
    """

    id: int
    token: AddedToken


@dataclass(frozen=True, slots=True)
class Change:
    """One step from a revision to the next.

    Attributes:
        tokens: tokens added, in order of id and without gaps.
        special_tokens: roles assigned.
        marked_tokens: entries that became special.
    """

    tokens: tuple[NewToken, ...] = ()
    special_tokens: tuple[SpecialToken, ...] = ()
    marked_tokens: tuple[MarkedToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A change together with what it claims to lead from and to.

    Attributes:
        parent_fingerprint: of the state before the change.
        change: the change.
        vocabulary: the state after it.
    """

    parent_fingerprint: str
    change: Change
    vocabulary: Reference


def tokenizer_id_of(name: str) -> str:
    """Makes a tokenizer id of a checkpoint's name, which may be a hub id such as `org/name`."""
    cleaned = re.sub("[^A-Za-z0-9._-]+", "-", name).strip("-._")
    return cleaned[:64] or "tokenizer"
