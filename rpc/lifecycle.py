"""What a server is doing: loading, ready or draining, and which calls run.

Owned by the event loop; nothing here is safe to call from another thread.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from rpc import errors, running_call
from rpc.running_call import RunningCall

# A full server is asked again this much later, at the earliest.
OVERLOAD_RETRY_S = 0.5

# Calls that were sent before the last client stopped calling have arrived by then.
_QUIET_S = 0.1
_POLL_S = 0.02


class Phase(Enum):
    """A server goes from LOADING to READY, perhaps back, and at last to DRAINING."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """Admits calls while the server is ready, and can end running calls.

    Attributes:
        phase: changed by `set_ready` and `drain` only.
        ends_at: when running calls are ended, by the monotonic clock; infinite until `drain`.
        withheld: why a server that is ready wants no new work; some of its methods still answer.
        draining: set once, when draining begins. A stream that would never end by
            itself waits for it.
    """

    def __init__(self, max_concurrent_calls: int) -> None:
        self.phase = Phase.LOADING
        self.withheld: set[str] = set()
        self.draining = asyncio.Event()
        self.ends_at = math.inf
        self._running: set[RunningCall] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._max_concurrent_calls = max_concurrent_calls
        self._over = False
        self._unanswered = 0
        self._last_arrival = float("-inf")

    @property
    def running(self) -> int:
        """Calls admitted and not yet ended."""
        return len(self._running)

    @property
    def drain_left_s(self) -> float | None:
        """How long calls that go on are still answered, in seconds; None unless it drains."""
        if self.phase is not Phase.DRAINING:
            return None
        return max(self.ends_at - time.monotonic(), 0.0)

    def set_ready(self, ready: bool) -> None:
        """Opens or closes the server for new calls. Does nothing while draining."""
        if self.phase is not Phase.DRAINING:
            self.phase = Phase.READY if ready else Phase.LOADING

    def drain(self, grace_s: float = 0.0) -> None:
        """Refuses new work from now on, for good. Running calls go on, for so long at most."""
        self.phase = Phase.DRAINING
        self.ends_at = time.monotonic() + grace_s
        self.draining.set()

    def end_calls(self) -> None:
        """Ends every running call, and takes none: `Draining` is what callers get."""
        self._over = True
        for call in self._running:
            call.end(errors.Draining())

    @asynccontextmanager
    async def admitted(self, *, continues: bool = False) -> AsyncIterator[None]:
        """Counts a call for as long as the block runs.

        Args:
            continues: whether it goes on with something that the server holds for its caller,
                and so is let in while the server drains.

        Raises:
            Loading: the server is not ready.
            Draining: the server is shutting down, or has no more time for this call.
            Overloaded: as many calls run as the server takes.
        """
        self.check_open(continues=continues)
        async with running_call.begin() as call:
            self._running.add(call)
            self._idle.clear()
            try:
                yield
            finally:
                self._running.remove(call)
                if not self._running:
                    self._idle.set()

    def arrived(self) -> None:
        """Notes a call, admitted or not, that `answered` will end."""
        self._unanswered += 1
        self._last_arrival = time.monotonic()

    def answered(self) -> None:
        """Notes that the last bytes of a call are gRPC's to send."""
        self._unanswered -= 1

    async def wait_idle(self) -> None:
        """Returns when no call runs."""
        await self._idle.wait()

    async def wait_quiet(self) -> None:
        """Returns when every call is answered and none has come for a moment."""
        while self._unanswered or time.monotonic() - self._last_arrival < _QUIET_S:  # noqa: ASYNC110  # quiet is no event
            await asyncio.sleep(_POLL_S)

    def check_open(self, *, continues: bool = False) -> None:
        """Checks that a call would be let in now, as `admitted` does.

        Raises:
            Loading, Draining, Overloaded: it would not.
        """
        if self.phase is Phase.LOADING:
            raise errors.Loading
        if self.phase is Phase.DRAINING and (self._over or not continues):
            raise errors.Draining
        if self.running >= self._max_concurrent_calls:
            raise errors.Overloaded(
                "calls", self._max_concurrent_calls, retry_delay_s=OVERLOAD_RETRY_S
            )
