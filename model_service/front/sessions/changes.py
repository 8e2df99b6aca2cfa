"""Calls that change a session: step, truncate, fork, select rows, rebind."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from model_service.front.checks.plan import Plan
from model_service.front.checks.sessions import StepPlan, read_row_indices
from model_service.front.engine_client.client import EngineClient
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.session import Session, StepAnswer
from model_service.protocol import (
    CloseSession,
    ForkSession,
    RebindSession,
    SelectSessionRows,
    TruncateSession,
)
from rpc.errors import InvalidField
from rpc.tasks import LastingTasks
from vocabulary import Reference
from wire.violations import Violations


@dataclass(frozen=True, slots=True)
class ForkedSessions:
    """Copies of a session.

    Attributes:
        session_ids: their names.
        copied_kv_bytes: bytes of KV cache that were copied for all of them.
    """

    session_ids: list[str]
    copied_kv_bytes: int


@dataclass(frozen=True, slots=True)
class Rebound:
    """A session on its new revision.

    Attributes:
        session: the session.
        previous: the vocabulary that it was on before.
    """

    session: Session
    previous: Reference


class SessionCalls:
    """Keeps what the front knows of a session and what the engine has the same.

    Attributes:
        tasks: run work that goes on when its caller is gone: the session stays in use
            until the engine has answered, and what it answered is known here.
    """

    def __init__(self, engine: EngineClient, sessions: SessionRegistry) -> None:
        """Changes the sessions of a registry."""
        self._engine = engine
        self._sessions = sessions
        self.tasks = LastingTasks()

    async def step(self, session: Session, plan: StepPlan) -> StepAnswer:
        """Steps a session that is in use, and keeps the answer if the step has a name.

        Raises:
            PositionConflict: a row is elsewhere than expected; nothing happened.
            ServiceError: the engine refused it.
        """
        answer = await self._engine.ask(plan.command)
        session.apply(answer)
        if not plan.command.look_ahead:
            session.selection = plan.command.selection
        answered = StepAnswer(answer, session.seeds, session.vocabulary)
        if plan.step_id:
            session.last_step = (plan.step_id, answered)
        return answered

    async def truncate(self, session_id: str, lengths: list[int]) -> Session:
        """Forgets the tokens of each row from a length on.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: a call has it.
            InvalidField: the lengths are not one per row, or a row is shorter.
        """
        with self._sessions.use(session_id) as session:
            if len(lengths) != session.num_rows:
                raise InvalidField("positions", f"must have one per row, {session.num_rows}")
            session.apply(await self._engine.ask(TruncateSession(session_id, lengths)))
            session.cut_prompts()
        return session

    async def fork(self, session: Session, rows: list[int], count: int) -> ForkedSessions:
        """Copies rows of a session that is in use to new sessions. Nothing is left if it fails.

        Raises:
            Overloaded: there are too many sessions, rows or tokens of sessions.
            KVCacheExceeded: the tokens will never fit.
        """
        forks = [session.fork(rows, self._sessions.new_id()) for _ in range(count)]
        names = [fork.session_id for fork in forks]
        self._sessions.admit(forks)
        try:
            with ExitStack() as uses:
                for fork in forks:
                    uses.enter_context(self._sessions.hold(fork))
                answer = await self._engine.ask(
                    ForkSession(session.session_id, names, rows), undo=map(CloseSession, names)
                )
        except BaseException:
            for fork in forks:
                self._sessions.remove(fork, "error")
            raise
        for fork in forks:
            fork.positions = list(answer.positions)
            fork.kv_bytes = answer.kv_bytes
        return ForkedSessions(names, answer.copied_bytes)

    async def select_rows(self, session_id: str, rows: list[int], *, max_rows: int) -> Session:
        """Replaces a session's rows by a selection of them.

        Args:
            session_id: the session.
            rows: index of the old row that becomes each new row.
            max_rows: most rows.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: a call has it.
            InvalidField: a row does not exist, or the rows are too many.
            Overloaded: there are too many rows or tokens of sessions.
            KVCacheExceeded: the tokens will never fit.
        """
        with self._sessions.use(session_id) as session:
            violations = Violations()
            read_row_indices(rows, violations, num_rows=session.num_rows, max_rows=max_rows)
            violations.check()
            before, selected = session.plan, session.select(rows)
            self._sessions.check_rows(max(0, len(rows) - session.num_rows))
            session.plan = max(before, selected, key=_num_rows)  # until it is settled
            try:
                answer = await self._engine.ask(SelectSessionRows(session_id, rows))
            except BaseException:
                session.plan = before
                raise
            session.plan = selected
            session.apply(answer)
        return session

    async def rebind(self, session_id: str, target: Reference) -> Rebound:
        """Moves a session to a revision that is there.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: a call has it.
            InvalidField: the session is on a newer revision.
        """
        with self._sessions.use(session_id) as session:
            before = session.vocabulary
            if target.revision < before.revision:
                raise InvalidField(
                    "vocabulary.revision",
                    f"must be at least {before.revision}, the session's revision",
                )
            session.apply(await self._engine.ask(RebindSession(session_id, target.revision)))
            session.plan = replace(session.plan, vocabulary=target)
        return Rebound(session, before)


def _num_rows(plan: Plan[Any]) -> int:
    return len(plan.sequences)
