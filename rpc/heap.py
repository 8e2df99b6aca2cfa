"""Keeps the heaps of the C library small, as far as it is glibc.

After a large block was freed, glibc takes blocks of that size from its heaps, of which it has up to
eight for every core. Small blocks come to lie between them, and a service that has seen messages
of megabytes in all of its threads keeps their space, although it is unused. Blocks that are
mapped one by one go back to the system when they are freed; and no more threads than there are
cores take blocks at once, so as many heaps are enough.
"""

import ctypes
import os
from collections.abc import Callable

from rpc.control_groups import available_cores

MAPPED_BYTES = 5 * 2**18
"""Blocks of this size and more are mapped one by one. It is above the largest chunk of a stream, as
the system takes 0.1 ms to make a MiB of new pages."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_VARIABLES = [
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
]


def _find(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function


_mallopt = _find("mallopt")
_malloc_trim = _find("malloc_trim")


def keep_small() -> None:
    """Maps large blocks one by one and makes few heaps, unless the operator has set them up."""
    if _mallopt is None or any(name in os.environ for name in _VARIABLES):
        return
    _mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    _mallopt(_M_TRIM_THRESHOLD, 2 * MAPPED_BYTES)
    _mallopt(_M_ARENA_MAX, available_cores())


def release() -> None:
    """Gives free pages back, which takes some milliseconds; other threads run meanwhile."""
    if _malloc_trim is not None:
        _malloc_trim(0)
