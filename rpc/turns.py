"""When a caller that was turned away may come back, and room for it when it does.

The time that it is told is true only if it finds room then. So room is kept for those whose
turn it is, which is not given to callers that come later. A caller is known by the id of its
request, which is the same in every attempt.
"""

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass, field

LONGEST_DELAY_S = 120.0
"""Who would have to wait longer gets no turn."""

MAX_TURNS = 10_000

# Clients come up to a fifth of the time late, and pause for a moment whatever they are told.
_LATE_SHARE = 0.3
_LATE_S = 0.5
_ROUNDING_S = 0.001

# How much of the estimate is what the newest turn showed.
_NEWEST_SHARE = 0.05


@dataclass(order=True, slots=True)
class _Turn:
    """When a caller finds room, and until when it is waited for. Ordered by when it starts."""

    starts: float
    ends: float = field(compare=False)
    caller: str = field(compare=False)
    num_places: int = field(compare=False)
    started: bool = field(default=False, compare=False)
    over: bool = field(default=False, compare=False)


class Turns:
    """The turns of all callers that were turned away. Times are of the monotonic clock."""

    def __init__(self, max_kept: int) -> None:
        """Starts without any.

        Args:
            max_kept: most places that are kept at a time.
        """
        self._max_kept = max_kept
        self._turns: defaultdict[str, list[_Turn]] = defaultdict(list)
        self._num_turns = 0
        self._to_start: list[_Turn] = []  # a heap
        self._to_end: list[tuple[float, _Turn]] = []  # a heap
        self._places_ahead = 0  # of turns that have not started
        self._places_due = 0  # of turns that have
        self._share_taken = 1.0  # of turns: some callers never come back

    def num_kept(self, now: float) -> int:
        """Returns how many places others may not have: for the share of callers that comes back.

        Also for those whose turn is still to come: the places that become free until then are
        theirs.
        """
        self._advance(now)
        num_places = self._places_ahead + self._places_due
        return min(self._max_kept, math.ceil(self._share_taken * num_places))

    def has_come(self, caller: str, now: float) -> bool:
        """Says whether it is a caller's turn."""
        self._advance(now)
        return caller in self._turns and min(self._turns[caller]).started

    def give(
        self, caller: str, num_places: int, num_missing: int, per_second: float, now: float
    ) -> float:
        """Gives a turn to a caller that finds no room, and returns the time until then, in seconds.

        One that has waited for its turn waits only until there is room.

        Args:
            caller: the caller; without a name it gets no turn.
            num_places: places that it needs.
            num_missing: places that have to become free for it, beside those before it.
            per_second: places that become free.
            now: the time.
        """
        if waited := self.has_come(caller, now):
            self.take(caller)
        num_before = 0.0 if waited else self._share_taken * self._places_ahead
        delay_s = (num_before + num_missing) / per_second
        if delay_s > LONGEST_DELAY_S:
            return LONGEST_DELAY_S
        if caller and self._num_turns < MAX_TURNS:
            starts, late_s = now + delay_s - _ROUNDING_S, delay_s * _LATE_SHARE + _LATE_S
            turn = _Turn(starts, starts + late_s, caller, num_places)
            self._turns[caller].append(turn)
            self._num_turns += 1
            self._places_ahead += num_places
            heapq.heappush(self._to_start, turn)
        return delay_s

    def take(self, caller: str) -> None:
        """Ends the first turn of a caller that has come, if it has one."""
        if caller in self._turns:
            self._end(min(self._turns[caller]), taken=True)

    def _advance(self, now: float) -> None:
        """Starts the turns whose time has come, and ends those whose callers have not."""
        while self._to_start and self._to_start[0].starts <= now:
            turn = heapq.heappop(self._to_start)
            if not turn.over:
                turn.started = True
                self._places_ahead -= turn.num_places
                self._places_due += turn.num_places
                heapq.heappush(self._to_end, (turn.ends, turn))
        while self._to_end and self._to_end[0][0] <= now:
            turn = heapq.heappop(self._to_end)[1]
            if not turn.over:
                self._end(turn, taken=False)

    def _end(self, turn: _Turn, *, taken: bool) -> None:
        turn.over = True
        turns = self._turns[turn.caller]
        turns.remove(turn)
        if not turns:
            del self._turns[turn.caller]
        self._num_turns -= 1
        if turn.started:
            self._places_due -= turn.num_places
        else:
            self._places_ahead -= turn.num_places
        self._share_taken += _NEWEST_SHARE * (taken - self._share_taken)
