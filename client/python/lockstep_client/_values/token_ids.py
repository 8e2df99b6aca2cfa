"""Token ids as callers give them: whole numbers of Python, numpy or torch, and nothing else.

`int()` and numpy would silently make an id of 1.5, of True and of "1" too.
"""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from lockstep_client._values.tensors import Array
from lockstep_client.exceptions import WrongType

Row = Sequence[int] | Array
"""Token ids of one sequence, without padding."""


def one(value: Any) -> int:
    """Reads one id.

    Raises:
        TypeError: it is not a whole number.
    """
    if type(value) is int:
        return value
    if not isinstance(value, bool) and _holds_ids(value):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise WrongType(f"Token ids are whole numbers, not {_named(value)}.")


def row(values: Row) -> list[int]:
    """Reads the ids of one sequence.

    Raises:
        TypeError: they are not a row, or not whole numbers.
    """
    if isinstance(values, str | bytes) or np.ndim(values) != 1:
        raise WrongType("Rows of token ids are expected, for example [[1, 2], [3]].")
    if len(values) == 0:  # numpy gives empty rows a type that is not an integer
        return []
    if not hasattr(values, "dtype"):
        return [one(value) for value in values]
    array: Any = values  # of numpy or of torch
    if not _holds_ids(array):
        raise WrongType(f"Token ids are whole numbers, not {_named(array)}.")
    ids: list[int] = array.tolist()
    return ids


def one_or_row(values: int | Row) -> list[int]:
    """Reads one id, or the ids of one sequence.

    Raises:
        TypeError: they are not whole numbers.
    """
    return row(values) if np.ndim(values) else [one(values)]  # type: ignore[arg-type]


def rectangle(values: Any) -> Any:
    """Returns a `[B, S]` array of whole numbers as it is, for example of ids or positions.

    Args:
        values: an array or tensor, or lists of numbers.

    Raises:
        TypeError: they are not whole numbers.
    """
    if not hasattr(values, "dtype"):
        return np.array([row(each) for each in values], dtype=np.int64)
    if not _holds_ids(values):
        raise WrongType(f"Token ids are whole numbers, not {_named(values)}.")
    return values


def _holds_ids(values: Any) -> bool:
    """Whether the elements of an array or tensor are whole numbers; True for anything else."""
    dtype = getattr(values, "dtype", None)
    return dtype is None or _name(dtype).startswith(("int", "uint"))


def _named(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return repr(value) if dtype is None or np.ndim(value) == 0 else f"an array of {_name(dtype)}"


def _name(dtype: Any) -> str:
    """Returns the name of an element type of numpy (`int64`) or of torch (`torch.int64`)."""
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")
