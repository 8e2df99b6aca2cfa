"""Calls that open, change and close sessions."""

from collections.abc import Sequence
from functools import partial

from model_service.front.engine_client.calls import EngineCalls
from model_service.protocol import (
    CloseSession,
    DescribeSession,
    ForkSession,
    OpenSession,
    RebindSession,
    SelectSessionRows,
    SequenceSpec,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    StepRow,
    StepSession,
    TruncateSession,
)
from model_service.protocol.generation import GenerationConfig, ScoreSelection


class EngineSessions:
    """Sessions of the engine, by name.

    Every method that waits raises:
        Overloaded: there are no permits left.
        EngineLost: the engine is gone.
        ServiceError: the engine refused the command.
    """

    def __init__(self, calls: EngineCalls) -> None:
        """Sends commands through the calls of an engine."""
        self._calls = calls

    async def open(
        self,
        session_id: str,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        max_length: int,
        selection: ScoreSelection,
        cache_salt: str | None = None,
        sample: bool = False,
        append: bool = False,
    ) -> SessionAnswer:
        """Prefills rows and keeps them. A call that is left early leaves no session behind."""
        command = partial(
            OpenSession,
            session_id=session_id,
            sequences=sequences,
            config=config,
            revision=revision,
            max_length=max_length,
            selection=selection,
            cache_salt=cache_salt,
            sample=sample,
            append=append,
        )
        undo = partial(self.forget, session_id)
        return await self._calls.ask(SessionAnswer, command, num_rows=len(sequences), undo=undo)

    async def step(
        self,
        session_id: str,
        rows: list[StepRow],
        selection: ScoreSelection,
        *,
        sample: bool,
        append: bool,
        look_ahead: bool = False,
    ) -> SessionAnswer:
        """Appends tokens to rows and returns the distributions after them.

        A call that is left early is undone, unless it has been answered already.

        Raises:
            PositionConflict: a row is elsewhere than expected; nothing happened.
        """
        command = partial(
            StepSession,
            session_id=session_id,
            rows=rows,
            selection=selection,
            sample=sample,
            append=append,
            look_ahead=look_ahead,
        )
        return await self._calls.ask(SessionAnswer, command, num_rows=len(rows))

    async def truncate(self, session_id: str, lengths: list[int]) -> SessionAnswer:
        """Forgets the tokens of each row from a length on.

        Raises:
            InvalidField: a row is shorter than that; nothing happened.
        """
        command = partial(TruncateSession, session_id=session_id, lengths=lengths)
        return await self._calls.ask(SessionAnswer, command)

    async def fork(self, session_id: str, fork_ids: list[str], rows: list[int]) -> SessionForked:
        """Copies rows to new sessions. A call that is left early leaves none of them behind.

        Raises:
            Overloaded: there is no room for them now.
            KVCacheExceeded: there will never be.
        """
        command = partial(ForkSession, session_id=session_id, fork_ids=fork_ids, rows=rows)
        undo = partial(self._forget_all, fork_ids)
        return await self._calls.ask(SessionForked, command, undo=undo)

    async def select_rows(self, session_id: str, rows: list[int]) -> SessionAnswer:
        """Replaces a session's rows by a selection of them.

        Raises:
            Overloaded: there is no room for so many rows now.
            KVCacheExceeded: there will never be.
        """
        command = partial(SelectSessionRows, session_id=session_id, rows=rows)
        return await self._calls.ask(SessionAnswer, command)

    async def rebind(self, session_id: str, revision: int) -> SessionAnswer:
        """Moves a session's rows to a newer revision of the vocabulary, which is there."""
        command = partial(RebindSession, session_id=session_id, revision=revision)
        return await self._calls.ask(SessionAnswer, command)

    async def describe(self, session_id: str) -> SessionDescription:
        """Returns a session's tokens."""
        command = partial(DescribeSession, session_id=session_id)
        return await self._calls.ask(SessionDescription, command)

    async def close(self, session_id: str) -> SessionDescription:
        """Frees a session and returns the tokens it held."""
        command = partial(CloseSession, session_id=session_id)
        return await self._calls.ask(SessionDescription, command)

    def forget(self, session_id: str) -> None:
        """Frees a session without waiting for the answer."""
        self._calls.tell(partial(CloseSession, session_id=session_id))

    def _forget_all(self, session_ids: Sequence[str]) -> None:
        for session_id in session_ids:
            self.forget(session_id)
