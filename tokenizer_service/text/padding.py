"""From ragged rows to a rectangle with its mask and its positions.

B: rows, S: padded length. The mask is made from lengths and never from ids, so a
padding id that is also the end-of-sequence id is as good as any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["left", "right"]

# What stands at padded places of `position_ids`, as in the documentation of
# Hugging Face: any value works there, and this one is always a legal position.
PADDED_POSITION = 1


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """A rectangle.

    Attributes:
        input_ids: `[B, S]` int64.
        attention_mask: `[B, S]` int64, 1 at real tokens and 0 at padding.
        position_ids: `[B, S]` int64, the cumulative sum of the mask minus one, and
            `PADDED_POSITION` at padding.
        side: the side that was padded.
        pad_token_id: the id at padded places.
        lengths: real tokens of each row.
    """

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]
    side: Side
    pad_token_id: int
    lengths: tuple[int, ...]


def padded_length(
    lengths: Sequence[int], *, max_length: int | None, pad_to_multiple_of: int
) -> int:
    """Returns S.

    Args:
        lengths: of the rows.
        max_length: the length asked for, at least the longest row; None means the
            longest row.
        pad_to_multiple_of: S is rounded up to a multiple of it.
    """
    longest = max(lengths, default=0) if max_length is None else max_length
    return -(-longest // pad_to_multiple_of) * pad_to_multiple_of


def pad(rows: Sequence[Sequence[int]], length: int, *, side: Side, pad_token_id: int) -> PaddedRows:
    """Pads rows to `length`, which is at least the length of the longest."""
    shape = (len(rows), length)
    input_ids = np.full(shape, pad_token_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        places = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        input_ids[index, places] = row
        attention_mask[index, places] = 1
    return PaddedRows(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        side=side,
        pad_token_id=pad_token_id,
        lengths=tuple(len(row) for row in rows),
    )


def position_ids(attention_mask: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Derives positions from a mask: `[B, S]` int64 to `[B, S]` int64.

    Source: "Batched generation with left padding" in the Hugging Face documentation,
    as `prepare_inputs_for_generation` of transformers computes it.
    """
    positions = attention_mask.cumsum(axis=-1) - 1
    positions[attention_mask == 0] = PADDED_POSITION
    return positions
