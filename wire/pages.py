"""Pages of a list: how large one is, and where the next one begins."""

from typing import Protocol

from wire.violations import Violations

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_MAX_START = 10**18


class PageRequest(Protocol):
    """A request for a page of a list."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def read_page(
    request: PageRequest, violations: Violations, *, end: int = _MAX_START
) -> tuple[int, int]:
    """Reads which page is asked for.

    Args:
        request: the request.
        violations: what is wrong is noted here.
        end: a page begins before it.

    Returns:
        Where the page begins, 0 for the first one, and the most entries that it has.
    """
    if not 0 <= request.page_size <= MAX_SIZE:
        violations.add("page_size", f"must be in [0, {MAX_SIZE}]; 0 means {DEFAULT_SIZE}")
    token, start = request.page_token, 0
    if token:
        is_number = token.isascii() and token.isdecimal() and len(token) < len(str(_MAX_START))
        start = int(token) if is_number else end
        if start >= end:
            violations.add("page_token", "must be the next_page_token of an earlier page")
    return start, request.page_size or DEFAULT_SIZE
