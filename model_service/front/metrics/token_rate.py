"""How many tokens per second are generated now."""

import time
from collections import deque

RATE_WINDOW_S = 10.0


class TokenRate:
    """Counts tokens over the last seconds."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, num_tokens: int) -> None:
        """Counts tokens as generated now."""
        self._counts.append((time.monotonic(), num_tokens))
        self._forget()

    def per_second(self) -> float:
        """Returns the mean over the window, tokens per second."""
        self._forget()
        return sum(count for _, count in self._counts) / self._window_s

    def _forget(self) -> None:
        start = time.monotonic() - self._window_s
        while self._counts and self._counts[0][0] < start:
            self._counts.popleft()
