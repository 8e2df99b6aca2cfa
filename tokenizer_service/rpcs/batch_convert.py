"""Rows of ids between the wire and our own types: ragged, padded, and from one to the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lockstep.v1 import tensor_pb2, tokenizer_service_pb2, tokens_pb2

from rpc.errors import InvalidField, TokenIdOutOfRange
from tokenizer_service.rpcs.request_fields import (
    MAX_PAD_MULTIPLE,
    MAX_ROW_LENGTH,
    RequestLimits,
    check_count,
    check_enum,
    check_ids,
    check_range,
)
from tokenizer_service.text import padding
from tokenizer_service.text.padding import PaddedRows, Side

_SIDES: dict[int, Side] = {
    tokens_pb2.PADDING_SIDE_LEFT: "left",
    tokens_pb2.PADDING_SIDE_RIGHT: "right",
}
_SIDE_NAMES = {"left": "PADDING_SIDE_LEFT", "right": "PADDING_SIDE_RIGHT"}

_INTEGERS: dict[int, str] = {
    tensor_pb2.DATA_TYPE_INT64: "<i8",
    tensor_pb2.DATA_TYPE_INT32: "<i4",
}
_MASKS: dict[int, str] = _INTEGERS | {
    tensor_pb2.DATA_TYPE_UINT8: "u1",
    tensor_pb2.DATA_TYPE_BOOL: "u1",
}


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch is padded.

    Attributes:
        side: where.
        max_length: the length, None for the length of the longest row.
        pad_to_multiple_of: the length is rounded up to a multiple of it.
        pad_token_id: the padding id, None for the tokenizer's own.
    """

    side: Side = "left"
    max_length: int | None = None
    pad_to_multiple_of: int = 1
    pad_token_id: int | None = None


def read_side(field: str, value: int, default: Side) -> Side:
    """Reads a side.

    Raises:
        InvalidField: this version does not know the value.
    """
    sides = {tokens_pb2.PADDING_SIDE_UNSPECIFIED: default} | _SIDES
    side: Side = check_enum(field, value, sides)
    return side


def read_padding(
    field: str, message: tokenizer_service_pb2.PaddingOptions, size: int
) -> Padding | None:
    """Reads padding options. None means no padding.

    Raises:
        InvalidField: a member is out of its range.
    """
    longest = tokenizer_service_pb2.PADDING_STRATEGY_LONGEST
    to_length = tokenizer_service_pb2.PADDING_STRATEGY_MAX_LENGTH
    none = tokenizer_service_pb2.PADDING_STRATEGY_NONE
    unset = tokenizer_service_pb2.PADDING_STRATEGY_UNSPECIFIED
    is_padded: bool = check_enum(
        f"{field}.strategy",
        message.strategy,
        {longest: True, to_length: True, none: False, unset: False},
    )
    multiple = message.pad_to_multiple_of if message.HasField("pad_to_multiple_of") else 1
    max_length = message.max_length if message.HasField("max_length") else None
    pad_token_id = message.pad_token_id if message.HasField("pad_token_id") else None
    check_range(f"{field}.pad_to_multiple_of", multiple, 1, MAX_PAD_MULTIPLE)
    if max_length is not None:
        check_range(f"{field}.max_length", max_length, 1, MAX_ROW_LENGTH)
    elif message.strategy == to_length:
        raise InvalidField(f"{field}.max_length", "must be set to pad to it")
    if pad_token_id is not None:
        check_range(f"{field}.pad_token_id", pad_token_id, 0, size - 1)
    side = read_side(f"{field}.side", message.side, "left")
    if not is_padded:
        return None
    length = max_length if message.strategy == to_length else None
    return Padding(side, length, multiple, pad_token_id)


def pad_rows(
    field: str,
    rows: Sequence[Sequence[int]],
    options: Padding,
    *,
    default_pad_token_id: int,
    limits: RequestLimits,
) -> tokens_pb2.PaddedBatch:
    """Pads rows.

    Raises:
        InvalidField: a row is longer than the length asked for, or the batch too large.
    """
    lengths = [len(row) for row in rows]
    if options.max_length is not None and max(lengths, default=0) > options.max_length:
        raise InvalidField(
            f"{field}.max_length", "is shorter than a row; ask for truncation to cut rows"
        )
    length = padding.padded_length(
        lengths, max_length=options.max_length, pad_to_multiple_of=options.pad_to_multiple_of
    )
    if len(rows) * length > limits.max_padded_cells:
        raise InvalidField(
            field,
            f"gives {len(rows) * length} cells, more than the limit of {limits.max_padded_cells}; "
            "send fewer rows, rows of similar length, or do not pad",
        )
    pad_token_id = default_pad_token_id if options.pad_token_id is None else options.pad_token_id
    return padded_batch(padding.pad(rows, length, side=options.side, pad_token_id=pad_token_id))


def padded_batch(rows: PaddedRows) -> tokens_pb2.PaddedBatch:
    """Converts a rectangle to its message."""
    return tokens_pb2.PaddedBatch(
        input_ids=_tensor(rows.input_ids),
        attention_mask=_tensor(rows.attention_mask),
        position_ids=_tensor(rows.position_ids),
        padding_side=_SIDE_NAMES[rows.side],
        pad_token_id=rows.pad_token_id,
        lengths=rows.lengths,
    )


def token_batch(rows: Sequence[Sequence[int]]) -> tokens_pb2.TokenBatch:
    """Converts ragged rows to their message."""
    return tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=row) for row in rows])


def read_token_batch(
    field: str, message: tokens_pb2.TokenBatch, size: int, limits: RequestLimits
) -> list[Sequence[int]]:
    """Reads ragged rows; a row may be empty.

    Raises:
        InvalidField: the rows are none, or too many.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    check_count(f"{field}.sequences", message.sequences, limits.max_items)
    rows: list[Sequence[int]] = [sequence.ids for sequence in message.sequences]
    for index, row in enumerate(rows):
        check_ids(f"{field}.sequences[{index}].ids", index, row, size)
    return rows


def read_prompt_batch(
    field: str, message: tokens_pb2.PromptBatch, size: int, limits: RequestLimits
) -> list[Sequence[int]]:
    """Reads rows in either form and drops padding.

    Raises:
        InvalidField: the batch is missing, or its members contradict each other.
        TokenIdOutOfRange: an id that is not masked is not in the vocabulary.
    """
    match message.WhichOneof("batch"):
        case "token_batch":
            return read_token_batch(f"{field}.token_batch", message.token_batch, size, limits)
        case "padded_batch":
            return _read_padded(f"{field}.padded_batch", message.padded_batch, size, limits)
    raise InvalidField(field, "must be set")


def _read_padded(
    field: str, message: tokens_pb2.PaddedBatch, size: int, limits: RequestLimits
) -> list[Sequence[int]]:
    ids = _matrix(f"{field}.input_ids", message.input_ids, _INTEGERS)
    mask = _matrix(f"{field}.attention_mask", message.attention_mask, _MASKS)
    if mask.shape != ids.shape:
        raise InvalidField(f"{field}.attention_mask", "must have the shape of input_ids")
    if not 1 <= len(ids) <= limits.max_items:
        raise InvalidField(f"{field}.input_ids", f"must have 1 to {limits.max_items} rows")
    if not np.isin(mask, (0, 1)).all():
        raise InvalidField(f"{field}.attention_mask", "must hold 0 and 1 only")
    real = mask.astype(bool)
    for row in np.flatnonzero(~real.any(axis=1)).tolist():
        raise InvalidField(f"{field}.attention_mask", f"masks all of row {row}")
    if message.HasField("position_ids"):
        _check_positions(f"{field}.position_ids", message.position_ids, real)
    for row, index in np.argwhere(real & ((ids < 0) | (ids >= size))).tolist():
        raise TokenIdOutOfRange(
            f"{field}.input_ids",
            row=row,
            index=index,
            token_id=int(ids[row, index]),
            vocabulary_size=size,
        )
    return [row[kept].tolist() for row, kept in zip(ids, real, strict=True)]


def _check_positions(field: str, tensor: tensor_pb2.Tensor, real: npt.NDArray[np.bool_]) -> None:
    positions = _matrix(field, tensor, _INTEGERS)
    if positions.shape != real.shape:
        raise InvalidField(field, "must have the shape of input_ids")
    expected = padding.position_ids(real.astype(np.int64))
    for row in np.flatnonzero((real & (positions != expected)).any(axis=1)).tolist():
        raise InvalidField(field, f"contradict the mask in row {row}")


def _matrix(field: str, tensor: tensor_pb2.Tensor, types: dict[int, str]) -> npt.NDArray[Any]:
    """Reads a `[B, S]` tensor of one of the types."""
    dtype = np.dtype(check_enum(f"{field}.dtype", tensor.dtype, types))
    if len(tensor.shape) != 2 or min(tensor.shape) < 0:
        raise InvalidField(f"{field}.shape", "must be [rows, length]")
    if math.prod(tensor.shape) * dtype.itemsize != len(tensor.data):
        raise InvalidField(f"{field}.data", "must have the length that dtype and shape give")
    return np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape))


def _tensor(array: npt.NDArray[np.int64]) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_INT64, shape=array.shape, data=array.astype("<i8").tobytes()
    )
