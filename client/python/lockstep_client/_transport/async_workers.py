"""Several calls at a time, for asyncio. `sync_workers` has the same names for threads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from lockstep_client._transport import status
from lockstep_client._transport.room import Room

Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_each(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item], num_workers: int
) -> list[Result]:
    """Runs `work` on every item, and returns the results in the order of the items.

    The first failure is raised, and ends what still runs.

    Args:
        work: what is done with an item.
        items: the items.
        num_workers: most of them at a time.
    """
    results: dict[int, Result] = {}
    remaining = iter(enumerate(items))

    async def take() -> None:
        for index, item in remaining:
            results[index] = await work(item)

    workers = [asyncio.create_task(take()) for _ in range(min(num_workers, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(items))]


@asynccontextmanager
async def turn(room: Room, count: int, timeout_s: float | None, peer: str) -> AsyncIterator[None]:
    """Waits for places in a room, and holds them.

    Args:
        room: where.
        count: how many.
        timeout_s: the longest time to wait; None means no limit.
        peer: who is to be called, for messages.

    Raises:
        DeadlineExceeded: they did not become free in time.
    """
    came = asyncio.Event()
    visit = room.ask(count, came.set)
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await came.wait()
        except TimeoutError as error:
            raise status.overdue(peer) from error
        yield
    finally:
        room.leave(visit)
