"""Prompts as they arrive, ragged or padded, to ragged rows of ids.

Padding ends here: masked places are dropped wherever they are, so a row runs at
its own length and a batch gives what its rows give alone. Ids are not compared
with the vocabulary here, see `token_ids.py`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from lockstep.v1 import tensor_pb2, tokens_pb2
from numpy.typing import NDArray

from model_service.front.checks.configuration import ResolvedConfig
from rpc.errors import ContextLengthExceeded
from wire.violations import Violations

_Dtypes = dict[int, np.dtype[Any]]

_INTEGERS: _Dtypes = {
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
}
_MASKS: _Dtypes = _INTEGERS | {
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What rows are compared with before they are read.

    Attributes:
        max_rows: most rows of a call.
        context_length: most tokens of a row.
    """

    max_rows: int
    context_length: int


def read_prompts(
    batch: tokens_pb2.PromptBatch,
    violations: Violations,
    bounds: Bounds,
    *,
    field: str = "prompt",
    allow_empty_rows: bool = False,
) -> list[list[int]]:
    """Reads a batch in either form.

    Args:
        batch: the prompts.
        violations: what is wrong is noted here; the result is then meaningless.
        bounds: how many rows there may be, and how long; more are not read.
        field: path of the batch in the request.
        allow_empty_rows: whether a row may have no token at all.

    Returns:
        The ids of each row, without padding.

    Raises:
        ContextLengthExceeded: a row is longer than the context.
    """
    form = batch.WhichOneof("batch")
    if form == "padded_batch":
        rows = _read_padded(batch.padded_batch, field, violations, bounds)
        field = f"{field}.padded_batch"
    elif form == "token_batch":
        rows = read_ragged(batch.token_batch, field, violations, bounds)
        field = f"{field}.token_batch.sequences"
    else:
        violations.add(field, "is required: set token_batch or padded_batch")
        return []
    if rows is None:
        return []
    if not rows:
        violations.add(field, "must have at least one row")
    for index, row in enumerate(rows):
        if not row and not allow_empty_rows:
            violations.add(
                f"{field}[{index}]" if form == "token_batch" else f"{field}.attention_mask",
                f"row {index} must have at least one token",
            )
    return rows


def read_ragged(
    batch: tokens_pb2.TokenBatch, field: str, violations: Violations, bounds: Bounds
) -> list[list[int]] | None:
    """Reads rows without padding; None where there are too many. Parameters as `read_prompts`."""
    if not _has_room(len(batch.sequences), field, violations, bounds):
        return None
    _check_lengths([len(sequence.ids) for sequence in batch.sequences], bounds)
    return [list(sequence.ids) for sequence in batch.sequences]


def _has_room(num_rows: int, field: str, violations: Violations, bounds: Bounds) -> bool:
    if num_rows > bounds.max_rows:
        violations.add(field, f"has {num_rows} rows; one call may have {bounds.max_rows}")
    return num_rows <= bounds.max_rows


def _check_lengths(lengths: list[int], bounds: Bounds) -> None:
    context = bounds.context_length
    for row, length in enumerate(lengths):
        if length > context:
            raise ContextLengthExceeded(
                row=row, prompt_tokens=length, new_tokens=0, context_tokens=context
            )


def read_padding(
    batch: tokens_pb2.PromptBatch,
    rows: list[list[int]],
    resolved: ResolvedConfig,
    violations: Violations,
    path: str = "generation_config",
) -> list[int]:
    """Returns the padding that each row came with, as far as lengths count it.

    Args:
        batch: the prompts.
        rows: what they were read as.
        resolved: whether lengths count padding.
        violations: a prompt without padding to count is noted here.
        path: of the configuration in the request.
    """
    if not resolved.config.lengths_include_padding:
        return [0] * len(rows)
    if not batch.HasField("padded_batch"):
        if not resolved.lenient:
            violations.add(
                f"{path}.lengths_include_padding",
                "has no effect without a padded_batch; leave it out, or set lenient",
            )
        return [0] * len(rows)
    width = batch.padded_batch.input_ids.shape[-1] if rows else 0
    return [width - len(row) for row in rows]


def _read_padded(
    batch: tokens_pb2.PaddedBatch, field: str, violations: Violations, bounds: Bounds
) -> list[list[int]] | None:
    outer, field = field, f"{field}.padded_batch"
    input_ids = _read_matrix(batch.input_ids, _INTEGERS, f"{field}.input_ids", violations)
    mask = _read_matrix(batch.attention_mask, _MASKS, f"{field}.attention_mask", violations)
    if input_ids is None or mask is None:
        return None
    if mask.shape != input_ids.shape:
        violations.add(
            f"{field}.attention_mask",
            f"has shape {list(mask.shape)}, which must equal the shape of input_ids, "
            f"{list(input_ids.shape)}",
        )
        return None
    if not _has_room(len(input_ids), outer, violations, bounds):
        return None
    for row in np.flatnonzero(((mask != 0) & (mask != 1)).any(axis=1)):
        violations.add(f"{field}.attention_mask", f"row {row} has values other than 0 and 1")
    kept = mask.astype(bool)
    if batch.HasField("position_ids"):
        _check_positions(batch.position_ids, kept, f"{field}.position_ids", violations)
    _check_lengths(kept.sum(axis=1).tolist(), bounds)
    return [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)]


def _check_positions(
    tensor: tensor_pb2.Tensor, kept: NDArray[np.bool_], field: str, violations: Violations
) -> None:
    """Compares positions with the mask at real tokens; at padding any value is accepted."""
    positions = _read_matrix(tensor, _INTEGERS, field, violations)
    if positions is None:
        return
    if positions.shape != kept.shape:
        violations.add(
            field,
            f"has shape {list(positions.shape)}, which must equal the shape of input_ids, "
            f"{list(kept.shape)}",
        )
        return
    expected = kept.cumsum(axis=1) - 1
    for row in np.flatnonzero(((positions != expected) & kept).any(axis=1)):
        violations.add(
            field,
            f"row {row} contradicts attention_mask: the positions of its tokens must be "
            "0, 1, 2, ... in order",
        )


def _read_matrix(
    tensor: tensor_pb2.Tensor,
    dtypes: _Dtypes,
    field: str,
    violations: Violations,
) -> NDArray[Any] | None:
    """Reads a `[B, S]` tensor of one of the types, or notes what is wrong and returns None."""
    dtype = dtypes.get(tensor.dtype)
    if dtype is None:
        names = tensor_pb2.DataType.DESCRIPTOR.values_by_number
        allowed = ", ".join(names[x].name.removeprefix("DATA_TYPE_") for x in dtypes)
        violations.add(f"{field}.dtype", f"must be one of {allowed}")
        return None
    shape = tuple(tensor.shape)
    if len(shape) != 2 or min(shape) < 1:
        violations.add(f"{field}.shape", "must be [B, S], both >= 1")
        return None
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != num_bytes:
        violations.add(
            f"{field}.data",
            f"has {len(tensor.data)} bytes; shape {list(shape)} of this type has {num_bytes}",
        )
        return None
    return np.frombuffer(tensor.data, dtype=dtype).reshape(shape)
