"""Places that calls take: who finds one, and when who finds none may come back.

One that is turned away is told the time until its turn, by how fast places become free, and room is
kept for it then: see `turns`.
"""

import time

from rpc import logging
from rpc.errors import Overloaded
from rpc.identity import caller
from rpc.pace import Pace
from rpc.turns import Turns


class Places:
    """So many at work, and so many that wait. Times are of the monotonic clock, in seconds.

    Attributes:
        num_places: of both kinds.
        num_taken: those that are taken.
    """

    def __init__(self, num_at_work: int, num_waiting: int, *, usual_s: float) -> None:
        """Starts with all of them free.

        Args:
            num_at_work: places in which work is done. While these are taken, the pace is measured.
            num_waiting: places beyond them, half of which may be kept for who comes back.
            usual_s: how long work takes, until there is something to measure.
        """
        self.num_places = num_at_work + num_waiting
        self.num_taken = 0
        self._pace = Pace(num_at_work, usual_s=usual_s)
        self._turns = Turns(num_waiting // 2)

    def enter(self, resource: str) -> None:
        """Takes a place for the call that this code runs for; `leave` gives it back.

        Args:
            resource: what the places are, in the plural.

        Raises:
            Overloaded: there is none.
        """
        now, name = time.monotonic(), name_of_call()
        if self.free(name, now) < 1:
            raise Overloaded(resource, self.num_places, retry_delay_s=self.turn(name, 1, now))
        self.take(name, 1, now)

    def leave(self) -> None:
        """Gives a place back."""
        self.give_back(1, time.monotonic())

    def free(self, name: str, now: float) -> int:
        """Returns how many places there are for a caller, without those kept for others."""
        kept = 0 if self._turns.has_come(name, now) else self._turns.num_kept(now)
        return self.num_places - self.num_taken - kept

    def turn(self, name: str, num_places: int, now: float) -> float:
        """Gives a turn to a caller that finds no room. Returns the time until then, in seconds."""
        missing = num_places - self.free(name, now)
        return self._turns.give(name, num_places, missing, self.per_second(now), now)

    def take(self, name: str, num_places: int, now: float) -> None:
        """Takes places for a caller, whose turn is over if it had one."""
        self._turns.take(name)
        self.num_taken += num_places
        self._pace.taken(self.num_taken, now)

    def give_back(self, num_places: int, now: float) -> None:
        """Gives places back."""
        self.num_taken -= num_places
        self._pace.freed(num_places, self.num_taken, now)

    def per_second(self, now: float) -> float:
        """Returns how many places become free in a second."""
        return self._pace.per_second(now)


def name_of_call() -> str:
    """Returns the name under which the call that this code runs for waits, if it has an id."""
    request_id = logging.given_request_id()
    return request_id and f"{request_id} of {caller()}"
