"""Work that goes on when the call that began it is gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class LastingTasks:
    """Runs what must not be left in the middle. Owned by the event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def to_the_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits work that a cancellation of the caller does not stop.

        Raises:
            Exception: whatever the work raises.
        """
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Waits until everything that runs has ended, however it ends."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the call may be gone
