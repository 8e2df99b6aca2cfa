"""Ends reads of streams that gRPC leaves waiting past their deadline.

gRPC ends a call at its deadline, but the reader of its stream waits for the last
message to be settled too, in a loop without a limit that nothing public ends:
`cancel` does nothing to a call that is over (grpc/grpc#20562). Where gRPC forgets
to settle it, as in grpc/grpc#41036, this hands the reader `OVERDUE` as a last
message. Calls that end as they should cost an entry in a table, and messages nothing.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lockstep_client._transport.endpoint import GRACE_S

OVERDUE: Final = object()
"""Read from a call that has not ended in time."""


class DeadlineWatch:
    """Calls under way and their deadlines, and a thread while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends_at: dict[Any, float] = {}
        self._wakes_at = 0.0
        self._running = False

    @contextmanager
    def over(self, call: Any, deadline: float | None) -> Iterator[None]:
        """Watches a call while the context is open.

        Args:
            call: what gRPC returned for a call that answers with a stream.
            deadline: by the monotonic clock, in seconds; None watches nothing.
        """
        if deadline is None:
            yield
            return
        self._add(call, deadline + GRACE_S)
        try:
            yield
        finally:
            with self._changed:
                self._ends_at.pop(call, None)

    def _add(self, call: Any, ends_at: float) -> None:
        with self._changed:
            self._ends_at[call] = ends_at
            if not self._running:
                self._running = True
                threading.Thread(target=self._watch, daemon=True).start()
            elif ends_at < self._wakes_at:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._ends_at:
                now = time.monotonic()
                for call, ends_at in list(self._ends_at.items()):
                    if ends_at <= now:
                        del self._ends_at[call]
                        _hand_over(call)
                self._wakes_at = min(self._ends_at.values(), default=now)
                self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
            self._running = False


def _hand_over(call: Any) -> None:
    call.cancel()
    state = call._state  # the only way in
    with state.condition:
        state.response = OVERDUE
        state.condition.notify_all()


WATCH: Final = DeadlineWatch()
