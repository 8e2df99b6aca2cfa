"""Runs encoding and decoding off the event loop, and only a limited amount at once.

Small work never waits for large work: each has its own threads, which the operating system
lets take turns. Large work is done piece by piece; between two pieces other work goes first,
and work whose caller is gone ends. The amount of begun work is limited by the memory that it
needs, the amount of waiting work by the memory that its requests hold.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from rpc import heap
from rpc.errors import Overloaded
from rpc.pace import Pace
from rpc.places import Places

_T = TypeVar("_T")

# How long work takes, and large work waits for memory, until some has.
_USUAL_S = 0.01
_USUAL_LARGE_S = 0.2

Pieces = Generator[None, None, _T]
"""Work that may stop at every yield, and the result that it returns."""

_CALLS = "tokenizer calls"

_WORTH_RETURNING_BYTES = 16 * 2**20

SMALL_BYTES = 16 * 2**10
"""A request of this size takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What work takes, estimated from above.

    Attributes:
        request_bytes: of texts or ids, which are held while it waits, too.
        working_bytes: memory that is in use once it has begun.
    """

    request_bytes: int
    working_bytes: int


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How much is in progress.

    Attributes:
        threads: calls that run at the same time, small ones and large ones each.
        max_pending: calls that run or wait, at most.
        max_working_bytes: memory that large calls use at the same time. One that
            needs more runs alone.
        max_waiting_bytes: requests of large calls that wait for it.
    """

    threads: int
    max_pending: int
    max_working_bytes: int = 256 * 2**20
    max_waiting_bytes: int = 32 * 2**20


class WorkerPool:
    """Bounded pools of threads. Used from one event loop.

    The tokenizer library lets other threads run while it works, so a few threads use
    as many cores, and the event loop keeps answering.
    """

    def __init__(self, limits: PoolLimits, *, observe_wait: Callable[[float], None]) -> None:
        """Starts no thread yet.

        Args:
            limits: how much is in progress.
            observe_wait: told the seconds each call waited for a thread.
        """
        self._limits = limits
        self._small = ThreadPoolExecutor(limits.threads, thread_name_prefix="tokenizer")
        self._large = ThreadPoolExecutor(limits.threads, thread_name_prefix="tokenizer-large")
        self._observe_wait = observe_wait
        at_work = min(limits.threads, limits.max_pending)
        self._places = Places(at_work, limits.max_pending - at_work, usual_s=_USUAL_S)
        self._beginning = Pace(1, usual_s=_USUAL_LARGE_S)  # of large work, while some waits
        self._working_bytes = 0
        self._used_bytes = 0  # since memory was last given back
        self._closed = False
        self._waiting: deque[tuple[Cost, asyncio.Future[None]]] = deque()

    async def run(self, call: Callable[[], _T]) -> _T:
        """Runs a small call in a thread. A caller that goes away does not stop it.

        Raises:
            Overloaded: as many calls run or wait as the pool takes.
        """
        self._places.enter(_CALLS)
        loop = asyncio.get_running_loop()
        submitted = time.perf_counter()

        def timed() -> _T:
            self._observe_wait(time.perf_counter() - submitted)
            return call()

        future = self._small.submit(copy_context().run, timed)
        # Counted until the thread is done with it, which a cancelled caller does not see.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._places.leave))
        return await asyncio.wrap_future(future)

    async def run_pieces(self, pieces: Pieces[_T], cost: Cost) -> _T:
        """Runs work piece by piece in threads. A caller that goes away stops it between two.

        Raises:
            Overloaded: as much runs or waits as the pool takes.
        """
        if cost.request_bytes <= SMALL_BYTES:
            return await self.run(lambda: finish(pieces))
        self._places.enter(_CALLS)
        submitted = time.perf_counter()
        try:
            await self._begin(cost)
        except BaseException:
            self._places.leave()
            raise
        result: list[_T] = []

        def observed() -> Pieces[_T]:
            self._observe_wait(time.perf_counter() - submitted)
            return (yield from pieces)

        work = observed()

        def take_turn() -> None:
            try:
                next(work)
            except StopIteration as returned:
                result.append(returned.value)

        def end() -> None:
            self._places.leave()
            self._end(cost)

        loop = asyncio.get_running_loop()
        context = copy_context()
        # Queued again for every piece: behind one piece of every other call.
        turn = self._large.submit(context.run, take_turn)
        try:
            await asyncio.wrap_future(turn)
            while not result:
                turn = self._large.submit(context.run, take_turn)
                await asyncio.wrap_future(turn)
        finally:
            # A running piece goes on to its end, which a cancelled caller does not see.
            turn.add_done_callback(lambda _: loop.call_soon_threadsafe(end))
        return result[0]

    def close(self) -> None:
        """Waits for running work and ends the threads."""
        self._closed = True
        for executor in (self._small, self._large):
            executor.shutdown(cancel_futures=True)

    async def _begin(self, cost: Cost) -> None:
        """Waits, first come first served, for memory for the work."""
        if not self._waiting and self._fits(cost):
            self._use(cost)
            return
        held = sum(waiting.request_bytes for waiting, _ in self._waiting)
        limit = self._limits.max_waiting_bytes
        if self._waiting and held + cost.request_bytes > limit:
            delay_s = self._until_begun_s(held + cost.request_bytes - limit)
            raise Overloaded("bytes of waiting texts", limit, retry_delay_s=delay_s)
        entry = (cost, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._beginning.taken(len(self._waiting), time.monotonic())
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._beginning.freed(1, len(self._waiting), time.monotonic())
                self._begin_next()
            elif not entry[1].cancelled():  # its turn came just before its caller left
                self._end(cost)
            raise

    def _until_begun_s(self, num_bytes: int) -> float:
        """Returns the time until work that waits, with requests of so many bytes, has begun."""
        num_calls = 0
        for cost, _ in self._waiting:
            if num_bytes <= 0:
                break
            num_bytes -= cost.request_bytes
            num_calls += 1
        return num_calls / self._beginning.per_second(time.monotonic())

    def _use(self, cost: Cost) -> None:
        self._working_bytes += cost.working_bytes
        self._used_bytes += cost.working_bytes

    def _end(self, cost: Cost) -> None:
        self._working_bytes -= cost.working_bytes
        self._begin_next()
        if not self._working_bytes and self._used_bytes > _WORTH_RETURNING_BYTES:
            self._used_bytes = 0
            if not self._closed:
                self._large.submit(heap.release)

    def _begin_next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            cost, turn = self._waiting.popleft()
            self._beginning.freed(1, len(self._waiting), time.monotonic())
            if not turn.cancelled():
                self._use(cost)
                turn.set_result(None)

    def _fits(self, cost: Cost) -> bool:
        in_use = self._working_bytes
        return not in_use or in_use + cost.working_bytes <= self._limits.max_working_bytes


def finish(pieces: Pieces[_T]) -> _T:
    """Does all of the work at once."""
    while True:
        try:
            next(pieces)
        except StopIteration as returned:
            result: _T = returned.value
            return result
