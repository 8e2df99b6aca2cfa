"""Places for the sequences of one client, as many as its service admits. Pure: callers wait."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Visit:
    """Places that are asked for, or held."""

    count: int
    begin: Callable[[], object]
    inside: bool = False


class Room:
    """Gives out places in the order in which they are asked for. Threads share it.

    Attributes:
        capacity: number of places; 0 until it is known, when one visit at a time is let in.
    """

    def __init__(self) -> None:
        self.capacity = 0
        self._used = 0
        self._waiting: deque[Visit] = deque()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether anybody is inside."""
        return self._used > 0

    def ask(self, count: int, begin: Callable[[], object]) -> Visit:
        """Asks for places.

        Args:
            count: how many. More than there are get an empty room.
            begin: called when they are there.
        """
        visit = Visit(count, begin)
        with self._lock:
            self._waiting.append(visit)
            self._admit()
        return visit

    def leave(self, visit: Visit) -> None:
        """Gives places back, or asks for them no longer."""
        with self._lock:
            if visit.inside:
                self._used -= visit.count
            else:
                self._waiting.remove(visit)
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if self._used and self._used + first.count > self.capacity:
                return
            self._waiting.popleft()
            self._used += first.count
            first.inside = True
            first.begin()
