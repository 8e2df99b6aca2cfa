"""Prompts as they arrive, ragged or padded, to ragged rows of ids.

Padding ends here: masked places are dropped wherever they are, so a row runs at
its own length and a batch gives what its rows give alone. Ids are not compared
with the vocabulary here, see `token_ids.py`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lockstep.v1 import tensor_pb2, tokens_pb2
from numpy.typing import NDArray

from rpc.errors import ContextLengthExceeded
from wire.tensors import INTEGERS, MASKS, read_matrix
from wire.violations import Violations


@dataclass(frozen=True, slots=True)
class Bounds:
    """What rows are compared with before they are read.

    Attributes:
        max_rows: most rows of a call.
        context_length: most tokens of a row; unbounded where no model says how many.
    """

    max_rows: int
    context_length: int = sys.maxsize


def read_prompts(
    batch: tokens_pb2.PromptBatch,
    violations: Violations,
    bounds: Bounds,
    *,
    field: str = "prompt",
    allow_empty_rows: bool = False,
) -> list[Sequence[int]]:
    """Reads a batch in either form.

    Args:
        batch: the prompts.
        violations: what is wrong is noted here; the result is then meaningless.
        bounds: how many rows there may be, and how long; more are not read.
        field: path of the batch in the request.
        allow_empty_rows: whether a row may have no token at all.

    Returns:
        The ids of each row, without padding. Ragged rows are the message's own, uncopied.

    Raises:
        ContextLengthExceeded: a row is longer than the context.
    """
    match batch.WhichOneof("batch"):
        case "token_batch":
            if not _fits(len(batch.token_batch.sequences), field, violations, bounds):
                return []
            return read_ragged(
                batch.token_batch,
                f"{field}.token_batch",
                violations,
                bounds,
                allow_empty_rows=allow_empty_rows,
            )
        case "padded_batch":
            return _read_padded(batch.padded_batch, field, violations, bounds, allow_empty_rows)
    violations.add(field, "is required: set token_batch or padded_batch")
    return []


def read_ragged(
    batch: tokens_pb2.TokenBatch,
    field: str,
    violations: Violations,
    bounds: Bounds,
    *,
    allow_empty_rows: bool = False,
) -> list[Sequence[int]]:
    """Reads rows without padding; parameters and result are those of `read_prompts`.

    Raises:
        ContextLengthExceeded: a row is longer than the context.
    """
    rows: list[Sequence[int]] = [sequence.ids for sequence in batch.sequences]
    if not rows:
        violations.add(f"{field}.sequences", "must have at least one row")
    if not _fits(len(rows), field, violations, bounds):
        return []
    lengths = list(map(len, rows))
    _check_lengths(lengths, bounds)
    for index, length in enumerate(lengths):
        if not length and not allow_empty_rows:
            _note_empty(f"{field}.sequences[{index}]", index, violations)
    return rows


def _read_padded(
    batch: tokens_pb2.PaddedBatch,
    outer: str,
    violations: Violations,
    bounds: Bounds,
    allow_empty_rows: bool,
) -> list[Sequence[int]]:
    field = f"{outer}.padded_batch"
    input_ids = read_matrix(f"{field}.input_ids", batch.input_ids, INTEGERS, violations)
    mask = read_matrix(f"{field}.attention_mask", batch.attention_mask, MASKS, violations)
    if input_ids is None or mask is None:
        return []
    if not _have_one_shape(mask, input_ids, f"{field}.attention_mask", violations):
        return []
    if not _fits(len(input_ids), outer, violations, bounds):
        return []
    for row in np.flatnonzero(((mask != 0) & (mask != 1)).any(axis=1)):
        violations.add(f"{field}.attention_mask", f"row {row} has values other than 0 and 1")
    kept = mask.astype(bool)
    if batch.HasField("position_ids"):
        _check_positions(f"{field}.position_ids", batch.position_ids, kept, violations)
    lengths = kept.sum(axis=1).tolist()
    _check_lengths(lengths, bounds)
    for index, length in enumerate(lengths):
        if not length and not allow_empty_rows:
            _note_empty(f"{field}.attention_mask", index, violations)
    return [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)]


def _check_positions(
    field: str, tensor: tensor_pb2.Tensor, kept: NDArray[np.bool_], violations: Violations
) -> None:
    """Compares positions with the mask at real tokens; at padding any value is accepted."""
    positions = read_matrix(field, tensor, INTEGERS, violations)
    if positions is None or not _have_one_shape(positions, kept, field, violations):
        return
    expected = kept.cumsum(axis=1) - 1
    for row in np.flatnonzero(((positions != expected) & kept).any(axis=1)):
        violations.add(
            field,
            f"row {row} contradicts attention_mask: the positions of its tokens must be "
            "0, 1, 2, ... in order",
        )


def _have_one_shape(
    array: NDArray[Any], input_ids: NDArray[Any], field: str, violations: Violations
) -> bool:
    if array.shape == input_ids.shape:
        return True
    violations.add(
        field,
        f"has shape {list(array.shape)}, which must equal the shape of input_ids, "
        f"{list(input_ids.shape)}",
    )
    return False


def _fits(num_rows: int, field: str, violations: Violations, bounds: Bounds) -> bool:
    if num_rows > bounds.max_rows:
        violations.add(field, f"has {num_rows} rows; one call may have {bounds.max_rows}")
    return num_rows <= bounds.max_rows


def _note_empty(field: str, row: int, violations: Violations) -> None:
    violations.add(field, f"row {row} must have at least one token")


def _check_lengths(lengths: Sequence[int], bounds: Bounds) -> None:
    for row, length in enumerate(lengths):
        if length > bounds.context_length:
            raise ContextLengthExceeded(
                row=row,
                prompt_tokens=length,
                new_tokens=0,
                context_tokens=bounds.context_length,
            )
