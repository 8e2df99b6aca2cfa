"""Gives memory that nobody uses back to the system.

The C library keeps what was freed, in a heap for every few threads, and a service that once
had large texts stays that large. Only glibc can be told to return it; others do by themselves.
"""

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


_trim = _find_trim()


def release() -> None:
    """Returns free pages, which takes some milliseconds; other threads run meanwhile."""
    if _trim is not None:
        _trim(0)
