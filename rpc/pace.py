"""How fast places become free: what a caller that finds none can be told."""

from collections import deque


class Pace:
    """Counts places that become free while all of them are taken.

    What ends while there is room says nothing: then fewer run than could. Times are of the
    monotonic clock, in seconds, and are given, so that a test need not wait.
    """

    def __init__(self, num_places: int, *, usual_s: float) -> None:
        """Knows nothing yet.

        Args:
            num_places: how many there are.
            usual_s: how long a place is taken, until there is something to measure.
        """
        self._num_places = num_places
        self._usual_s = usual_s
        self._full_since: float | None = None  # or since the newest that became free
        self._spans: deque[float] = deque()
        self._total_s = 0.0

    def taken(self, num_taken: int, now: float) -> None:
        """Notes how many places are taken, after one more was."""
        if self._full_since is None and num_taken >= self._num_places:
            self._full_since = now

    def freed(self, num_freed: int, num_taken: int, now: float) -> None:
        """Notes that places became free, and how many are taken now."""
        if self._full_since is None:
            return
        for _ in range(num_freed):
            self._add(now - self._full_since)
            self._full_since = now
        if num_taken < self._num_places:
            self._full_since = None

    def per_second(self, now: float) -> float:
        """Returns how many places become free in a second while all are taken.

        A time in which none did counts too, so that a pace of long ago is not believed for long.
        """
        silent_s = 0.0 if self._full_since is None else now - self._full_since
        if not self._spans:
            return self._num_places / max(self._usual_s, silent_s)
        return len(self._spans) / max(self._total_s + silent_s, 1e-3)

    def _add(self, span_s: float) -> None:
        self._spans.append(span_s)
        self._total_s += span_s
        if len(self._spans) > 3 * self._num_places:  # three rounds, if all end together
            self._total_s -= self._spans.popleft()
