"""What a server is doing: loading, ready or draining, and how many calls run.

Owned by the event loop; nothing here is safe to call from another thread.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from rpc import errors

# A full server is asked again this much later, at the earliest.
OVERLOAD_RETRY_S = 0.5


class Phase(Enum):
    """A server goes from LOADING to READY, perhaps back, and at last to DRAINING."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """Admits calls while the server is ready and counts them until they end.

    Attributes:
        phase: changed by `set_ready` and `drain` only.
        running: calls admitted and not yet ended.
        paused: whether the service refuses new work by itself, so that some of its
            methods still answer.
        draining: set once, when draining begins. A stream that would never end by
            itself waits for it.
    """

    def __init__(self, max_concurrent_calls: int) -> None:
        self.phase = Phase.LOADING
        self.running = 0
        self.paused = False
        self.draining = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._max_concurrent_calls = max_concurrent_calls

    def set_ready(self, ready: bool) -> None:
        """Opens or closes the server for new calls. Does nothing while draining."""
        if self.phase is not Phase.DRAINING:
            self.phase = Phase.READY if ready else Phase.LOADING

    def drain(self) -> None:
        """Refuses new calls from now on, for good. Running calls go on."""
        self.phase = Phase.DRAINING
        self.draining.set()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a call for as long as the block runs.

        Raises:
            Loading: the server is not ready.
            Draining: the server is shutting down.
            Overloaded: as many calls run as the server takes.
        """
        if self.phase is Phase.LOADING:
            raise errors.Loading
        if self.phase is Phase.DRAINING:
            raise errors.Draining
        if self.running >= self._max_concurrent_calls:
            raise errors.Overloaded(
                "calls", self._max_concurrent_calls, retry_delay_s=OVERLOAD_RETRY_S
            )
        self.running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            if self.running == 0:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Returns when no call runs."""
        await self._idle.wait()
