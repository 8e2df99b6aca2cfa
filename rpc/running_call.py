"""A call while its handler runs, so that it can be ended from outside.

A shutdown ends calls that take too long; the caller of a stream may have stopped
reading it. In both cases the handler waits for something that does not come, and
the caller must still get an answer with the reason.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from rpc.errors import ServiceError

_current: ContextVar["RunningCall | None"] = ContextVar("running_call", default=None)


class RunningCall:
    """One call. Owned by the event loop."""

    def __init__(self) -> None:
        self._scope = asyncio.timeout(None)
        self._error: ServiceError | None = None

    def end(self, error: ServiceError) -> None:
        """Interrupts the handler where it waits: it cleans up, and the call fails with `error`.

        Only the first error counts.
        """
        if self._error is None:
            self._error = error
            self._scope.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def begin() -> AsyncIterator[RunningCall]:
    """Makes the code inside of the block a call that can be ended.

    Raises:
        ServiceError: the call was ended, with this error.
    """
    call = RunningCall()
    token = _current.set(call)
    try:
        async with call._scope:
            yield call
    except TimeoutError:
        if call._error is None:
            raise  # the handler's own
        raise call._error from None
    finally:
        _current.reset(token)


def current() -> RunningCall | None:
    """Returns the call that this code runs for, and None outside of one."""
    return _current.get()
