"""Batches of token ids, ragged and padded.

B is the number of rows, S the padded length.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._values import enums, html, tensors, token_ids
from lockstep_client._values.choices import choose
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client._values.token_ids import Row as Row
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import LockstepError, WrongType, WrongValue

PaddingSide = Literal["left", "right"]
ReturnTensors = Literal["np", "pt"]

KEYS = ("input_ids", "attention_mask", "position_ids")
"""What a model of Hugging Face takes of a batch, by its names."""

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

    __repr__ = one_line

    @property
    def pieces(self) -> list[str]:
        """What each id stands for, to be seen; empty unless bytes or spellings were asked for."""
        if self.token_bytes:
            return [html.piece(each) for each in self.token_bytes]
        return list(self.tokens)

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


@dataclass(frozen=True, slots=True, eq=False)
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

    __repr__ = one_line

    @classmethod
    def of_equal_rows(cls, rows: Sequence[Row]) -> Self:
        """Builds the rectangle of rows that are equally long, and so have no padding."""
        width = len(rows[0]) if rows else 0
        ids = np.array(rows, dtype=np.int64).reshape(len(rows), width)
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        return cls(ids, np.ones_like(ids), positions, "left", None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Padded):
            return NotImplemented
        same = self.padding_side == other.padding_side and self.pad_token_id == other.pad_token_id
        return same and all(np.array_equal(getattr(self, k), getattr(other, k)) for k in KEYS)

    __hash__ = None  # type: ignore[assignment]

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
        check_return_tensors("pt")
        import torch

        return type(self)(
            input_ids=torch.tensor(self.input_ids),
            attention_mask=torch.tensor(self.attention_mask),
            position_ids=torch.tensor(self.position_ids),
            padding_side=self.padding_side,
            pad_token_id=self.pad_token_id,
        )


@dataclass(frozen=True, slots=True)
class Batch(Mapping[str, Any]):
    """Encoded texts.

    As what Hugging Face's tokenizers return it is a mapping of `input_ids`,
    `attention_mask` and `position_ids`, so `**batch` goes into a model: theirs with
    `return_tensors="pt"`, or ours. Rows that are equally long are a rectangle without
    padding. Arrays are numpy, or torch tensors where that was asked for.

    Attributes:
        token_ids: ids of each row, without padding.
        vocabulary: the vocabulary that the ids belong to; None is not checked.
        padded: the rectangular form; None unless padding was asked for.
        encodings: details of each row; empty unless any were asked for or a row
            was cut.
        texts: rendered texts of a chat template, for display; else empty.
        return_tensors: `np` where arrays are numpy, `pt` where they are torch tensors.
        errors: why a row has no ids, by its number; empty unless `errors="return"` was asked for.
    """

    token_ids: list[list[int]]
    vocabulary: VocabularyRef | None = None
    padded: Padded | None = None
    encodings: list[Encoding] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    errors: dict[int, LockstepError] = field(default_factory=dict)
    return_tensors: ReturnTensors = field(default="np", compare=False, repr=False)

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """Shows the rows as colored pieces with their ids; pieces as far as they are known."""
        rows = []
        for index, ids in enumerate(self.token_ids[: html.MAX_ROWS]):
            texts = self.encodings[index].pieces if index < len(self.encodings) else []
            mask: list[int] = []
            if self.padded is not None:
                mask = [int(each) for each in self.padded.attention_mask[index]]
                ids = [int(each) for each in self.padded.input_ids[index]]
                waiting = iter(texts)
                texts = [next(waiting, "") if each else "" for each in mask] if texts else []
            rows.append((index, html.tokens(ids, texts, mask)))
        more = {"rows": len(self.token_ids)}
        return html.stacked([html.table(("row", "tokens"), rows), html.facts(more)])

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS:
            raise KeyError(f"A batch has {', '.join(KEYS)}, not {key!r}.")
        return getattr(self._rectangle(), key)

    def __contains__(self, key: object) -> bool:
        return key in KEYS

    def __iter__(self) -> Iterator[str]:
        return iter(KEYS)

    def __len__(self) -> int:
        return len(KEYS)

    @property
    def input_ids(self) -> Any:
        """`[B, S]` int64. Raises ValueError where rows differ in length without padding."""
        return self._rectangle().input_ids

    @property
    def attention_mask(self) -> Any:
        """`[B, S]` int64, 1 at tokens and 0 at padding. Raises ValueError as `input_ids`."""
        return self._rectangle().attention_mask

    @property
    def position_ids(self) -> Any:
        """`[B, S]` int64. Raises ValueError as `input_ids`."""
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
        return Batch(rows, self.vocabulary, padded, return_tensors=self.return_tensors)

    def _rectangle(self) -> Padded:
        if self.padded is not None:
            return self.padded
        if len({len(row) for row in self.token_ids}) > 1:
            raise WrongValue(
                "The rows differ in length: encode with padding='longest', pad them, or give "
                "the batch as it is."
            )
        rectangle = Padded.of_equal_rows(self.token_ids)
        return rectangle.to_torch() if self.return_tensors == "pt" else rectangle


Prompts = Batch | Mapping[str, Any] | Sequence[Row] | Array
"""What is taken wherever prompts are: a batch, rows of ids, a rectangle of ids without padding, or
a mapping with `input_ids` and `attention_mask` as Hugging Face's tokenizers return."""


def given(prompts: Prompts | None, options: Mapping[str, Any]) -> Prompts:
    """Returns the prompts of a call: its first argument, or `input_ids` and what goes with them.

    Raises:
        TypeError: none of them is given, or both are.
    """
    named = {key: options[key] for key in KEYS if options.get(key) is not None}
    if prompts is not None and not named:
        return prompts
    if prompts is not None or "input_ids" not in named:
        raise WrongType("Give prompts, or input_ids= and what goes with it, and not both.")
    return named if len(named) > 1 else named["input_ids"]


def check_return_tensors(return_tensors: str) -> None:
    """Refuses a kind of arrays that there is not, or whose library is not installed.

    Raises:
        ValueError: there is no such kind.
        ImportError: torch is not installed.
    """
    choose("return_tensors", return_tensors, dict.fromkeys(get_args(ReturnTensors)))
    if return_tensors == "pt" and importlib.util.find_spec("torch") is None:
        raise ImportError('return_tensors="pt" needs torch: pip install "lockstep-client[torch]"')


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


def rows_of(message: tokens_pb.PromptBatch) -> tuple[tuple[int, ...], ...]:
    """Reads the ids of prompts from their wire form, without padding."""
    if not message.HasField("padded_batch"):
        return tuple(tuple(row.ids) for row in message.token_batch.sequences)
    ids = tensors.from_message(message.padded_batch.input_ids)
    mask = tensors.from_message(message.padded_batch.attention_mask)
    return tuple(tuple(row[kept == 1].tolist()) for row, kept in zip(ids, mask, strict=True))


def vocabulary_of(prompts: Prompts) -> VocabularyRef | None:
    """Returns the vocabulary that prompts belong to, None where they do not say."""
    return prompts.vocabulary if isinstance(prompts, Batch) else None


def ragged_message(rows: Sequence[Row] | Array) -> tokens_pb.TokenBatch:
    """Builds the wire form of rows of ids; an array is `[B, T]` of any integer type.

    Raises:
        TypeError: `rows` is not a list of rows, for example one row alone, or an id is not
            a whole number.
    """
    if isinstance(rows, str | bytes) or not hasattr(rows, "__iter__"):
        raise WrongType(
            f"Rows of token ids are expected, for example [[1, 2], [3]], not {rows!r}; "
            "tokenizer.encode makes them of texts."
        )
    return tokens_pb.TokenBatch(
        sequences=[tokens_pb.TokenSequence(ids=token_ids.row(row)) for row in rows]
    )


def _mapping_message(mapping: Mapping[str, Any]) -> tokens_pb.PaddedBatch:
    missing = {"input_ids", "attention_mask"} - mapping.keys()
    if missing:
        raise WrongType(f"The mapping lacks {' and '.join(sorted(missing))}.")
    positions = mapping.get("position_ids")
    return tokens_pb.PaddedBatch(
        input_ids=tensors.to_message(_rectangle("input_ids", mapping["input_ids"])),
        attention_mask=tensors.to_message(_rectangle("attention_mask", mapping["attention_mask"])),
        position_ids=None
        if positions is None
        else tensors.to_message(_rectangle("position_ids", positions)),
    )


def _rectangle(name: str, values: Any) -> Any:
    """Returns a `[B, S]` array of whole numbers as it is; lists become one.

    Raises:
        InvalidArgument: it has another form.
    """
    try:
        array = token_ids.rectangle(values)
    except WrongType as error:
        raise WrongType(f"{name}: {error}") from None
    except (TypeError, ValueError):
        raise WrongValue(
            f"{name} is a rectangle of whole numbers, [B, S], not {values!r}; give rows of "
            "different lengths as a list of rows, without a mask."
        ) from None
    return array


def _int64(message: Any) -> Array:
    return tensors.from_message(message).astype(np.int64)
