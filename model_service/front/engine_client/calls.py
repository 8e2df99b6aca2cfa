"""Commands to the engine and what it answers, while it is there."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

from model_service.front.engine_client.call import Answer, Call
from model_service.front.engine_client.call_table import CallTable
from model_service.front.engine_client.process import EngineProcess
from model_service.protocol import Cancel, Command, Event
from rpc.errors import EngineLost, ServiceError

A = TypeVar("A", bound=Answer)

MakeCommand = Callable[[int], Command]
"""Makes the command of a call from its request id."""


class EngineCalls:
    """What every call to the engine has in common. Used by the event loop only.

    A call that is left early is cancelled in the engine.
    """

    def __init__(
        self,
        process: EngineProcess,
        *,
        max_running_sequences: int,
        max_waiting_sequences: int,
        buffer_bytes: int,
    ) -> None:
        """Starts without calls, see `EngineClient`."""
        self._process = process
        self._table = CallTable(
            process.ring,
            max_running_sequences=max_running_sequences,
            max_waiting_sequences=max_waiting_sequences,
            buffer_bytes=buffer_bytes,
            cancel=lambda request_id: process.post(Cancel(request_id)),
        )
        self._lost = False
        self._heard_at = 0.0

    @property
    def num_unfinished_rows(self) -> int:
        """Rows that run or wait, by the permits they hold."""
        return self._table.num_unfinished_rows

    @asynccontextmanager
    async def stream(
        self, make: MakeCommand, num_rows: int, *, num_permits: int | None = None
    ) -> AsyncIterator[Call]:
        """Sends a command of whose rows there will be events.

        Args:
            make: makes the command.
            num_rows: rows of which there will be events.
            num_permits: rows of a step that they take; None means one each.

        Raises:
            Overloaded: there are no permits left.
            EngineLost: the engine is gone.
        """
        if self._lost:
            raise EngineLost
        if not self._table:
            self._heard_at = time.monotonic()  # it was idle: its silence starts now
        with self._table.open(num_rows, num_permits) as call:
            self._process.post(make(call.request_id))
            yield call

    async def ask(
        self,
        answer: type[A],
        make: MakeCommand,
        *,
        num_rows: int = 0,
        undo: Callable[[], None] | None = None,
    ) -> A:
        """Sends a command that has one answer, and waits for it.

        Args:
            answer: type of the answer.
            make: makes the command.
            num_rows: rows of a step that it takes.
            undo: called when the call is left before it was answered.

        Raises:
            Overloaded: there are no permits left.
            EngineLost: the engine is gone.
            ServiceError: the engine refused the command.
        """
        async with self.stream(make, num_rows) as call:
            try:
                return cast(A, await call.answer())
            finally:
                if undo is not None and not call.settled:
                    undo()

    def tell(self, make: MakeCommand) -> None:
        """Sends a command whose answer nobody waits for."""
        self._process.post(make(self._table.next_request_id()))

    def deliver(self, event: Event) -> None:
        """Hands an event to its call."""
        self._table.deliver(event)

    def heard(self) -> None:
        """Notes that the engine has said something."""
        self._heard_at = time.monotonic()

    def silence_s(self, now: float) -> float:
        """Returns how long the engine has said nothing, with calls to answer, in seconds."""
        return now - self._heard_at if self._table else 0.0

    def fail_unread(self, now: float, timeout_s: float) -> None:
        """Fails the calls whose events nobody has taken for too long."""
        self._table.fail_unread(now, timeout_s)

    def fail_all(self, error: ServiceError) -> None:
        """Fails every call."""
        self._table.fail_all(error)

    def lose(self) -> None:
        """Fails every call, and all that come: the engine is gone."""
        self._lost = True
        self.fail_all(EngineLost())
