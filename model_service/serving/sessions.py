"""Sessions as callers know them: names, expiry, and one call at a time.

The engine keeps their tokens and KV cache; here is who may use them and until
when.
"""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any, TypeVar

import structlog

from model_service.engine_client.client import EngineClient
from model_service.engine_client.failure import service_error
from model_service.generation import ScoreSelection
from model_service.messages import SessionAnswer, SessionDescription
from model_service.metrics import ModelMetrics
from model_service.requests.session_calls import StepPlan, read_row_indices
from model_service.requests.violations import Violations
from model_service.serving.session_opening import Opening
from rpc.errors import InvalidField, Overloaded, SessionBusy, SessionNotFound

SWEEP_INTERVAL_S = 0.5
RETRY_DELAY_S = 1.0

T = TypeVar("T")

log = structlog.stdlib.get_logger("model_service.serving.sessions")


@dataclass(slots=True)
class Session:
    """One session.

    Attributes:
        session_id: its name, unguessable.
        opening: its rows as they were opened, its configuration and vocabulary.
        selection: what the newest call asked for, and the next one unless it says.
        ttl_s: idle time after which it is closed.
        positions: tokens of each row, after the newest call that was answered.
        kv_bytes: bytes of KV cache reserved.
        serial: grows from session to session; orders listings.
        opened_at: monotonic clock, in seconds.
        created_at: wall clock, in seconds since 1970.
        used_at: end of the newest call, monotonic clock.
        busy: whether a call is using it.
        last_step: the newest step that was named, and its answer.
    """

    session_id: str
    opening: Opening
    selection: ScoreSelection
    ttl_s: float
    positions: list[int] = field(default_factory=list)
    kv_bytes: int = 0
    serial: int = 0
    opened_at: float = field(default_factory=time.monotonic)
    created_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    busy: bool = False
    last_step: tuple[str, SessionAnswer] | None = None

    @property
    def expires_at(self) -> float:
        """When it expires if it is not used, in seconds since 1970."""
        return time.time() + self.used_at + self.ttl_s - time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether it has been idle for too long. Never while a call uses it."""
        return not self.busy and time.monotonic() > self.used_at + self.ttl_s

    @property
    def num_rows(self) -> int:
        """Number of its rows."""
        return len(self.opening.sequences)

    def select(self, indices: list[int]) -> Opening:
        """Returns the opening that has these rows in place of its own."""
        return replace(self.opening, sequences=[self.opening.sequences[i] for i in indices])

    def answer_of(self, step_id: str) -> SessionAnswer | None:
        """Returns the answer of the newest named step if this is its name."""
        if step_id and self.last_step is not None and self.last_step[0] == step_id:
            return self.last_step[1]
        return None

    def apply(self, answer: SessionAnswer) -> None:
        """Takes over the state that the engine answered with."""
        self.positions = [row.position for row in answer.rows]
        self.kv_bytes = answer.kv_bytes


@dataclass(frozen=True, slots=True)
class ForkedSessions:
    """Copies of a session.

    Attributes:
        session_ids: their names.
        copied_kv_bytes: bytes of KV cache that were copied for all of them.
    """

    session_ids: list[str]
    copied_kv_bytes: int


class SessionRegistry:
    """All open sessions. Used by the event loop only."""

    def __init__(
        self, engine: EngineClient, metrics: ModelMetrics, *, max_sessions: int, max_rows: int
    ) -> None:
        """Starts without sessions.

        Args:
            engine: what is told when a session ends.
            metrics: where opening and closing is recorded.
            max_sessions: most sessions.
            max_rows: most rows of all sessions.
        """
        self._engine = engine
        self._metrics = metrics
        self._max_sessions = max_sessions
        self._max_rows = max_rows
        self._sessions: dict[str, Session] = {}
        self._serials = count(1)
        self._going_on: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, session: Session) -> SessionAnswer:
        """Opens a session. Nothing is left of one that fails.

        Raises:
            Overloaded: there are too many sessions, or rows of sessions.
            ServiceError: the engine refused it, or a row failed.
        """
        self._admit([session])
        opening = session.opening
        try:
            with self.use(session.session_id):
                answer = await self._engine.open_session(
                    session.session_id,
                    opening.sequences,
                    opening.resolved.config,
                    revision=opening.vocabulary.revision,
                    max_length=opening.max_length,
                    selection=session.selection,
                )
                for row in answer.rows:
                    if row.failure is not None:
                        self._engine.forget_session(session.session_id)
                        raise service_error(row.failure)
        except BaseException:
            self._remove(session, "error")
            raise
        session.apply(answer)
        return answer

    async def step(self, session: Session, plan: StepPlan) -> SessionAnswer:
        """Steps a session that is in use, and keeps the answer if the step has a name.

        Raises:
            PositionConflict: a row is elsewhere than expected; nothing happened.
            ServiceError: the engine refused it.
        """
        answer = await self._engine.step_session(
            session.session_id,
            plan.rows,
            plan.selection,
            sample=plan.sample,
            append=plan.append,
            look_ahead=plan.look_ahead,
        )
        session.apply(answer)
        if not plan.look_ahead:
            session.selection = plan.selection
        if plan.step_id:
            session.last_step = (plan.step_id, answer)
        return answer

    async def truncate(self, session_id: str, lengths: list[int]) -> Session:
        """Forgets the tokens of each row from a length on.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: a call has it.
            InvalidField: there is not one length per row, or a row is shorter.
        """
        with self.use(session_id) as session:
            if len(lengths) != session.num_rows:
                raise InvalidField("positions", f"must have one per row, {session.num_rows}")
            session.apply(await self._engine.truncate_session(session_id, lengths))
        return session

    async def fork(self, session: Session, rows: list[int], count: int) -> ForkedSessions:
        """Copies rows of a session that is in use to new sessions. Nothing is left if it fails.

        Raises:
            Overloaded: there are too many sessions, rows or tokens of sessions.
            KVCacheExceeded: there will never be room for so many tokens.
        """
        opening, selection, ttl_s = session.select(rows), session.selection, session.ttl_s
        forks = [Session(new_session_id(), opening, selection, ttl_s) for _ in range(count)]
        names = [fork.session_id for fork in forks]
        self._admit(forks)
        try:
            with ExitStack() as uses:
                for name in names:
                    uses.enter_context(self.use(name))
                answer = await self._engine.fork_session(session.session_id, names, rows)
        except BaseException:
            for fork in forks:
                self._remove(fork, "error")
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
            InvalidField: there is no such row, or there are too many.
            Overloaded: there are too many rows or tokens of sessions.
            KVCacheExceeded: there will never be room for so many tokens.
        """
        with self.use(session_id) as session:
            violations = Violations()
            read_row_indices(rows, violations, num_rows=session.num_rows, max_rows=max_rows)
            violations.check()
            before, selected = session.opening, session.select(rows)
            self._check_rows(max(0, len(rows) - session.num_rows))
            session.opening = max(before, selected, key=_num_rows)  # until it is settled
            try:
                answer = await self._engine.select_session_rows(session_id, rows)
            except BaseException:
                session.opening = before
                raise
            session.opening = selected
            session.apply(answer)
        return session

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that goes on when its caller is gone.

        For what both sides must agree on: the session stays in use until the
        engine has answered, and what it answered is known here.
        """
        task = asyncio.ensure_future(work)
        self._going_on.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._going_on.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    @contextmanager
    def use(self, session_id: str) -> Iterator[Session]:
        """Takes a session for one call; its idle time starts anew when the call ends.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: another call has it.
        """
        session = self._find(session_id)
        if session.busy:
            raise SessionBusy(session_id)
        session.busy = True
        self._record()
        try:
            yield session
        finally:
            session.busy = False
            session.used_at = time.monotonic()
            self._record()

    def touch(self, session_id: str, ttl_s: float | None) -> Session:
        """Starts the idle time of a session anew, also while a call uses it.

        Raises:
            SessionNotFound: it does not exist or has expired.
        """
        session = self._find(session_id)
        session.used_at = time.monotonic()
        if ttl_s is not None:
            session.ttl_s = ttl_s
        return session

    def list(self, after_serial: int, limit: int) -> list[Session]:
        """Returns sessions in order of opening, those after a serial number."""
        live = (s for s in self._sessions.values() if s.serial > after_serial and not s.expired)
        return [*islice(live, limit)]

    async def close(self, session_id: str) -> SessionDescription:
        """Closes a session for its client.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionBusy: a call has it.
        """
        with self.use(session_id) as session:
            self._remove(session, "client")
            return await self._engine.close_session(session_id)

    async def expire_forever(self) -> None:
        """Closes sessions that have been idle for too long, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.expire()

    def expire(self) -> None:
        """Closes the sessions that have been idle for too long."""
        for session in [s for s in self._sessions.values() if s.expired]:
            self._remove(session, "idle_timeout")
            self._engine.forget_session(session.session_id)

    def _admit(self, sessions: Sequence[Session]) -> None:
        self.expire()
        if len(self._sessions) + len(sessions) > self._max_sessions:
            raise Overloaded("sessions", self._max_sessions, retry_delay_s=RETRY_DELAY_S)
        self._check_rows(sum(session.num_rows for session in sessions))
        for session in sessions:
            session.serial = next(self._serials)
            self._sessions[session.session_id] = session
            self._metrics.session_opened()
        self._record()

    def _check_rows(self, num_more: int) -> None:
        num_rows = sum(session.num_rows for session in self._sessions.values())
        if num_rows + num_more > self._max_rows:
            raise Overloaded("session_rows", self._max_rows, retry_delay_s=RETRY_DELAY_S)

    def _find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None or session.expired:
            raise SessionNotFound(session_id)
        return session

    def _remove(self, session: Session, reason: str) -> None:
        if self._sessions.pop(session.session_id, None) is not None:
            self._metrics.session_closed(reason, time.monotonic() - session.opened_at)
            self._record()

    def _record(self) -> None:
        active = sum(session.busy for session in self._sessions.values())
        self._metrics.sessions(active, len(self._sessions) - active)


def _num_rows(opening: Opening) -> int:
    return len(opening.sequences)


def new_session_id() -> str:
    """Returns a name that nobody can guess: 128 random bits."""
    return secrets.token_urlsafe(16)
