"""Runs encoding and decoding off the event loop, and only so much at once."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rpc.errors import Overloaded

_T = TypeVar("_T")
_RETRY_DELAY_S = 0.2


class WorkerPool:
    """A bounded pool of threads.

    The tokenizer library lets other threads run while it works, so a few threads use
    as many cores, and the event loop keeps answering.
    """

    def __init__(
        self, *, threads: int, max_pending: int, observe_wait: Callable[[float], None]
    ) -> None:
        """Starts no thread yet.

        Args:
            threads: calls that run at the same time.
            max_pending: calls that run or wait, at most.
            observe_wait: told the seconds each call waited for a thread.
        """
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="tokenizer")
        self._max_pending = max_pending
        self._num_pending = 0
        self._observe_wait = observe_wait

    async def run(self, call: Callable[[], _T]) -> _T:
        """Runs a call in a thread. A caller that goes away does not stop it.

        Raises:
            Overloaded: as many calls run or wait as the pool takes.
        """
        if self._num_pending >= self._max_pending:
            raise Overloaded("tokenizer calls", self._max_pending, retry_delay_s=_RETRY_DELAY_S)
        submitted = time.perf_counter()

        def timed() -> _T:
            self._observe_wait(time.perf_counter() - submitted)
            return call()

        loop = asyncio.get_running_loop()
        self._num_pending += 1
        future = self._executor.submit(timed)
        # Counted until the thread is done with it, which a cancelled caller does not see.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Waits for running calls and ends the threads."""
        self._executor.shutdown(cancel_futures=True)

    def _release(self) -> None:
        self._num_pending -= 1
