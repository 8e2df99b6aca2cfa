"""Batches of token ids, ragged and padded.

B is the number of rows, S the padded length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._values import enums, tensors, token_ids
from lockstep_client._values.choices import choose
from lockstep_client._values.tensors import Array
from lockstep_client._values.token_ids import Row as Row
from lockstep_client._values.vocabulary_ref import VocabularyRef

PaddingSide = Literal["left", "right"]

SIDES = enums.values(tokens_pb.PaddingSide)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What else is known about an encoded row. Lists are empty unless asked for.

    Attributes:
        truncated_token_count: ids that truncation removed.
        offsets: start and end (exclusive) of each token in its text, in the unit
            asked for.
        special_tokens_mask: 1 for tokens that the tokenizer added.
        word_ids: index of each token's word, None for tokens without one.
        tokens: spelling of each token.
        token_bytes: bytes of each token.
        token_type_ids: 0 for the first text of a pair, 1 for the second.
    """

    truncated_token_count: int = 0
    offsets: list[tuple[int, int]] = field(default_factory=list)
    special_tokens_mask: list[int] = field(default_factory=list)
    word_ids: list[int | None] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    token_bytes: list[bytes] = field(default_factory=list)
    token_type_ids: list[int] = field(default_factory=list)

    @classmethod
    def from_message(cls, message: tokenizer_pb.EncodingDetails) -> Self:
        """Reads the wire form."""
        return cls(
            truncated_token_count=message.truncated_token_count,
            offsets=list(zip(message.offset_starts, message.offset_ends, strict=True)),
            special_tokens_mask=list(message.special_tokens_mask),
            word_ids=[None if word == -1 else word for word in message.word_ids],
            tokens=list(message.tokens),
            token_bytes=list(message.token_bytes),
            token_type_ids=list(message.token_type_ids),
        )


@dataclass(frozen=True, slots=True)
class Padded:
    """The rectangular form of a batch.

    Attributes:
        input_ids: `[B, S]` int64.
        attention_mask: `[B, S]` int64, 1 at tokens and 0 at padding.
        position_ids: `[B, S]` int64, the cumulative sum of the mask minus one,
            and 1 at padding.
        padding_side: where padding was put.
        pad_token_id: the id at padding, None when nothing says which it is.
    """

    input_ids: Any
    attention_mask: Any
    position_ids: Any
    padding_side: PaddingSide
    pad_token_id: int | None

    @classmethod
    def from_message(cls, message: tokens_pb.PaddedBatch) -> Self:
        """Reads the wire form."""
        right = message.padding_side == tokens_pb.PADDING_SIDE_RIGHT
        return cls(
            input_ids=_int64(message.input_ids),
            attention_mask=_int64(message.attention_mask),
            position_ids=_int64(message.position_ids),
            padding_side="right" if right else "left",
            pad_token_id=message.pad_token_id if message.HasField("pad_token_id") else None,
        )

    def to_message(self) -> tokens_pb.PaddedBatch:
        """Builds the wire form."""
        return tokens_pb.PaddedBatch(
            input_ids=tensors.to_message(token_ids.rectangle(self.input_ids)),
            attention_mask=tensors.to_message(self.attention_mask),
            position_ids=tensors.to_message(self.position_ids),
            padding_side=choose("padding_side", self.padding_side, SIDES),
            pad_token_id=None if self.pad_token_id is None else token_ids.one(self.pad_token_id),
        )

    def extended(self, continuations: Sequence[Row]) -> Self:
        """Returns the rectangle with new tokens on the right, whichever side is padded.

        Positions go on from each row's own length: that of the newest token is
        the number of real tokens before it, not its column.

        Args:
            continuations: new ids of each row; shorter rows are filled up.
        """
        rows = [token_ids.row(row) for row in continuations]
        width = max(map(len, rows), default=0)
        pad = 0 if self.pad_token_id is None else self.pad_token_id
        ids = np.array([row + [pad] * (width - len(row)) for row in rows], dtype=np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
        lengths = np.asarray(self.attention_mask).sum(1, keepdims=True)
        positions = np.where(mask == 1, lengths + np.arange(width), 1)
        return type(self)(
            input_ids=np.concatenate((np.asarray(self.input_ids), ids), 1),
            attention_mask=np.concatenate((np.asarray(self.attention_mask), mask), 1),
            position_ids=np.concatenate((np.asarray(self.position_ids), positions), 1),
            padding_side=self.padding_side,
            pad_token_id=self.pad_token_id,
        )

    def to_torch(self) -> Self:
        """Returns the same with torch tensors, which share no memory with this one.

        Raises:
            ImportError: torch is not installed.
        """
        try:
            import torch
        except ModuleNotFoundError:
            raise ImportError(
                'return_tensors="pt" needs torch: pip install "lockstep-client[torch]"'
            ) from None

        return type(self)(
            input_ids=torch.tensor(self.input_ids),
            attention_mask=torch.tensor(self.attention_mask),
            position_ids=torch.tensor(self.position_ids),
            padding_side=self.padding_side,
            pad_token_id=self.pad_token_id,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded texts.

    `len(batch)` is the number of rows. Padded arrays are numpy, or torch tensors
    where `return_tensors="pt"` was asked for.

    Attributes:
        token_ids: ids of each row, without padding.
        vocabulary: the vocabulary that the ids belong to; None is not checked.
        padded: the rectangular form; None unless padding was asked for.
        encodings: details of each row; empty unless any were asked for or a row
            was cut.
        texts: rendered texts of a chat template, for display; else empty.
    """

    token_ids: list[list[int]]
    vocabulary: VocabularyRef | None = None
    padded: Padded | None = None
    encodings: list[Encoding] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def input_ids(self) -> Any:
        """`[B, S]` int64. Raises ValueError without padding."""
        return self._rectangle().input_ids

    @property
    def attention_mask(self) -> Any:
        """`[B, S]` int64, 1 at tokens and 0 at padding. Raises ValueError without padding."""
        return self._rectangle().attention_mask

    @property
    def position_ids(self) -> Any:
        """`[B, S]` int64. Raises ValueError without padding."""
        return self._rectangle().position_ids

    def extended(self, continuations: Sequence[Row]) -> "Batch":
        """Returns prompts with their continuations, as `generate` of transformers returns them.

        Args:
            continuations: new ids of each row, for example `Generation.sequences`.

        Returns:
            Ragged rows joined; the padded form grows on the right where there is one, see
            `Padded.extended`.
        """
        rows = [
            [*row, *token_ids.row(new)]
            for row, new in zip(self.token_ids, continuations, strict=True)
        ]
        padded = None if self.padded is None else self.padded.extended(continuations)
        return Batch(rows, self.vocabulary, padded)

    def _rectangle(self) -> Padded:
        if self.padded is None:
            raise ValueError("The batch is ragged: encode with padding='longest', or pad it.")
        return self.padded


Prompts = Batch | Mapping[str, Any] | Sequence[Row] | Array
"""What is taken wherever prompts are: a batch, rows of ids, a rectangle of ids without padding, or
a mapping with `input_ids` and `attention_mask` as Hugging Face's tokenizers return."""


def prompt_message(prompts: Prompts) -> tokens_pb.PromptBatch:
    """Builds the wire form of prompts.

    Raises:
        TypeError: `prompts` is none of the forms of `Prompts`.
    """
    if isinstance(prompts, Batch):
        if prompts.padded is not None:
            return tokens_pb.PromptBatch(padded_batch=prompts.padded.to_message())
        return tokens_pb.PromptBatch(token_batch=ragged_message(prompts.token_ids))
    if isinstance(prompts, Mapping):
        return tokens_pb.PromptBatch(padded_batch=_mapping_message(prompts))
    return tokens_pb.PromptBatch(token_batch=ragged_message(prompts))


def vocabulary_of(prompts: Prompts) -> VocabularyRef | None:
    """Returns the vocabulary that prompts belong to, None where they do not say."""
    return prompts.vocabulary if isinstance(prompts, Batch) else None


def ragged_message(rows: Sequence[Row] | Array) -> tokens_pb.TokenBatch:
    """Builds the wire form of rows of ids; an array is `[B, T]` of any integer type.

    Raises:
        TypeError: `rows` is not a list of rows, for example one row alone, or an id is not
            a whole number.
    """
    return tokens_pb.TokenBatch(
        sequences=[tokens_pb.TokenSequence(ids=token_ids.row(row)) for row in rows]
    )


def _mapping_message(mapping: Mapping[str, Any]) -> tokens_pb.PaddedBatch:
    missing = {"input_ids", "attention_mask"} - mapping.keys()
    if missing:
        raise TypeError(f"The mapping lacks {' and '.join(sorted(missing))}.")
    positions = mapping.get("position_ids")
    return tokens_pb.PaddedBatch(
        input_ids=tensors.to_message(token_ids.rectangle(mapping["input_ids"])),
        attention_mask=tensors.to_message(mapping["attention_mask"]),
        position_ids=None if positions is None else tensors.to_message(positions),
    )


def _int64(message: Any) -> Array:
    return tensors.from_message(message).astype(np.int64)
