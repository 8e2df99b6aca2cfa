"""Several blocking calls at a time. `async_workers` has the same names for asyncio."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import grpc

from lockstep_client._transport import status
from lockstep_client._transport.room import Room

Item = TypeVar("Item")
Result = TypeVar("Result")


class RunningStreams:
    """The streams that workers read, so that they can be ended from outside."""

    def __init__(self) -> None:
        self._calls: set[grpc.RpcContext] = set()
        self._lock = threading.Lock()
        self.ended = False

    @contextmanager
    def reading(self, call: grpc.RpcContext) -> Iterator[None]:
        """Holds a call while it is read."""
        with self._lock:
            self._calls.add(call)
            if self.ended:
                call.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)

    def end(self) -> None:
        """Cancels all, and those that are still to come."""
        with self._lock:
            self.ended = True
            for call in self._calls:
                call.cancel()


STREAMS: ContextVar[RunningStreams] = ContextVar("STREAMS", default=RunningStreams())  # noqa: B039  # of threads that are no workers: nobody ends them
"""Those of the workers that this thread is one of."""


def run_each(
    work: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> list[Result]:
    """Runs `work` on every item, and returns the results in the order of the items.

    The first failure is raised, and ends the streams that still run.

    Args:
        work: what is done with an item.
        items: the items.
        num_workers: most of them at a time.
    """
    if min(num_workers, len(items)) <= 1:
        return [work(item) for item in items]
    results: dict[int, Result] = {}
    remaining, lock, streams = iter(enumerate(items)), threading.Lock(), RunningStreams()

    def take() -> None:
        while not streams.ended:
            with lock:
                index, item = next(remaining, (None, None))
            if index is None:
                return
            results[index] = work(item)  # type: ignore[arg-type]

    num_workers = min(num_workers, len(items))
    with ThreadPoolExecutor(num_workers, "lockstep", STREAMS.set, (streams,)) as pool:
        try:
            for worker in as_completed([pool.submit(take) for _ in range(num_workers)]):
                worker.result()
        finally:
            streams.end()
    return [results[index] for index in range(len(items))]


@contextmanager
def turn(room: Room, count: int, timeout_s: float | None, peer: str) -> Iterator[None]:
    """Waits for places in a room, and holds them.

    Args:
        room: where.
        count: how many.
        timeout_s: the longest time to wait; None means no limit.
        peer: who is to be called, for messages.

    Raises:
        DeadlineExceeded: they did not become free in time.
    """
    came = threading.Event()
    visit = room.ask(count, came.set)
    try:
        if not came.wait(timeout_s):
            raise status.overdue(peer)
        yield
    finally:
        room.leave(visit)
