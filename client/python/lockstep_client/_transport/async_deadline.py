"""The deadline of a call, kept also where gRPC forgets the call."""

import asyncio
from types import TracebackType

from lockstep_client._transport import status
from lockstep_client._transport.endpoint import GRACE_S
from lockstep_client._transport.retries import Attempts


class Deadline:
    """Guards what is awaited of one call, in whichever task: enter it around each await.

    As `asyncio.timeout`, but with one timer for all messages of a call.
    """

    def __init__(self, attempts: Attempts, peer: str) -> None:
        """Starts the time; `close` it.

        Args:
            attempts: how much time is left for the call, and how much it had.
            peer: who is called, for messages.
        """
        timeout_s = attempts.timeout_s
        self._peer = peer
        self._limit = attempts.limit
        self._passed = False
        self._task: asyncio.Task[object] | None = None
        self._num_cancelled = 0
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout_s + GRACE_S, self._pass)

    def close(self) -> None:
        """Stops the time."""
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        self._passed = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> None:
        if self._passed:
            raise status.overdue(self._peer, self._limit)
        task = asyncio.current_task()
        assert task is not None, "Coroutines run in tasks."
        self._task, self._num_cancelled = task, task.cancelling()

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is None or not isinstance(exception, asyncio.CancelledError):
            return
        if self._passed:
            task.uncancel()
        if task.cancelling() <= self._num_cancelled:  # the task itself was not cancelled
            if self._passed:
                raise status.overdue(self._peer, self._limit) from exception
            raise status.closed(self._peer) from exception
