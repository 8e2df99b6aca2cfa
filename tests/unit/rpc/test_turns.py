"""Callers that come back when they are told, in simulated time."""

import heapq
import random
from collections import deque
from itertools import count
from statistics import median

import pytest

from rpc.places import Places
from rpc.turns import LONGEST_DELAY_S, Turns

RUNNING, WAITING, ROW_S = 32, 64, 1.0
PLACES = RUNNING + WAITING
MOST_RETRIES = 50
SHORTEST_PAUSE_S = 0.1  # of the client, whatever it is told


class Simulation:
    """A service that runs some rows and lets others wait, and callers that find room or do not.

    Attributes:
        waits: of each caller that was turned away and then let in: the time that it was told at
            first, and the time until it was let in.
        attempts: of each of these, how often it was turned away.
        served: calls that were let in.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.waits: list[tuple[float, float]] = []
        self.attempts: list[int] = []
        self.served = 0
        self._random = random.Random(seed)
        self._events: list = []
        self._order = count()
        self._queue: deque = deque()
        self._running = 0
        self._places = Places(RUNNING, WAITING, usual_s=0.25)

    def at(self, when: float, what, *arguments) -> None:
        """Has something done at a time."""
        heapq.heappush(self._events, (when, next(self._order), what, arguments))

    def run(self, until: float) -> None:
        """Lets time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)

    def call(self, name: str, rows: int, then=None, *, returns: bool = True) -> None:
        """Makes a call now, and again whenever it is told to, as the Python client does."""
        self._attempt(name, rows, then, returns, [])

    def _attempt(self, name, rows, then, returns, told) -> None:
        if rows > self._places.free(name, self.now):
            delay_s = self._places.turn(name, rows, self.now)
            told.append((self.now, delay_s))
            if returns and len(told) < MOST_RETRIES:
                pause_s = max(SHORTEST_PAUSE_S, delay_s) * self._random.uniform(1, 1.2)
                self.at(self.now + pause_s, self._attempt, name, rows, then, returns, told)
            return
        self._places.take(name, rows, self.now)
        self.served += 1
        if told:
            start, delay_s = told[0]
            self.waits.append((delay_s, self.now - start))
            self.attempts.append(len(told))
        left = [rows]
        self._queue += [(left, then)] * rows
        self._fill()

    def _fill(self) -> None:
        while self._queue and self._running < RUNNING:
            self._running += 1
            length_s = ROW_S * self._random.uniform(0.5, 1.5)
            self.at(self.now + length_s, self._end, *self._queue.popleft())

    def _end(self, left, then) -> None:
        self._running -= 1
        self._places.give_back(1, self.now)
        self._fill()
        left[0] -= 1
        if not left[0] and then is not None:
            then()


def ratios(simulation: Simulation) -> list[float]:
    """Returns what was told as a multiple of what was waited, once the pace is known."""
    later = simulation.waits[len(simulation.waits) // 4 :]
    return [max(told, SHORTEST_PAUSE_S) / waited for told, waited in later]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("times", [1.5, 3, 10])
def test_callers_that_come_back_find_room_when_they_were_told(times, rows):
    simulation = Simulation(seed=1)
    names = map(str, count())

    def again() -> None:
        simulation.call(next(names), rows, again)

    for _ in range(round(times * PLACES / rows)):
        simulation.at(0.0, again)
    simulation.run(200.0)
    assert len(simulation.waits) > 100
    assert 0.8 < median(ratios(simulation)) < 1.25
    assert simulation.served * rows > 0.97 * 200 * RUNNING / ROW_S
    later = simulation.attempts[len(simulation.attempts) // 2 :]
    assert later.count(1) > 0.6 * len(later)  # let in when they came back for the first time


def test_callers_that_never_come_back_keep_no_room_from_others():
    simulation = Simulation(seed=2)
    names = map(str, count())
    chance = random.Random(3)
    when = 0.0
    while when < 120:  # ten times what it can do
        when += chance.expovariate(10 * RUNNING / ROW_S)
        simulation.at(when, lambda: simulation.call(next(names), 1, returns=False))
        if when % 1 < 0.003:
            simulation.at(when, lambda: simulation.call(next(names), 1))
    simulation.run(120.0)
    assert simulation.served > 0.97 * 120 * RUNNING / ROW_S
    assert 0.5 < median(ratios(simulation)) < 1.5


def test_who_would_wait_too_long_is_told_the_longest_time():
    turns = Turns(4)
    assert turns.give("a", 1, 1, 1 / 1000, 0.0) == LONGEST_DELAY_S
    assert not turns.has_come("a", 500.0)


def test_a_turn_is_kept_for_a_while_and_then_lost():
    turns = Turns(4)
    delay_s = turns.give("a", 1, 1, 2.0, 0.0)
    assert delay_s == 0.5
    assert (turns.num_kept(0.4), turns.has_come("a", 0.4)) == (1, False)
    assert (turns.num_kept(0.5), turns.has_come("a", 0.5)) == (1, True)
    assert (turns.num_kept(2.0), turns.has_come("a", 2.0)) == (0, False)


def test_a_caller_without_a_name_is_told_a_time_and_has_no_turn():
    turns = Turns(4)
    assert turns.give("", 1, 1, 2.0, 0.0) == 0.5
    assert turns.num_kept(0.5) == 0


def test_each_of_the_calls_under_one_name_has_a_turn():
    turns = Turns(4)
    assert [turns.give("a", 1, 1, 2.0, 0.0) for _ in range(2)] == [0.5, 1.0]
    assert turns.num_kept(1.0) == 2
    turns.take("a")
    assert turns.num_kept(1.0) == 1
    assert turns.has_come("a", 1.0)


def test_a_caller_whose_turn_has_come_waits_only_until_there_is_room():
    turns = Turns(4)
    turns.give("a", 1, 1, 2.0, 0.0)
    for other in range(10):
        turns.give(f"other {other}", 1, 1, 2.0, 0.4)
    assert turns.give("a", 3, 2, 2.0, 0.5) == 1.0
