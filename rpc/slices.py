"""Long sequences in slices.

A loop that the interpreter runs in C (`min`, `join`, `translate`) lets no other thread run
until it has ended. Over a slice it takes milliseconds at most, whatever a caller sends.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T", bound=Sequence[object])

_LENGTH = 2**15


def slices(sequence: _T) -> Iterator[_T]:
    """Yields a sequence in slices, none when it is empty."""
    for start in range(0, len(sequence), _LENGTH):
        yield sequence[start : start + _LENGTH]  # type: ignore[misc]  # of the same type
