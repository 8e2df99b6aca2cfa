"""Sessions as callers know them: names, expiry, and one call at a time.

The engine keeps their tokens and KV cache; here is who may use them and until
when.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice

import structlog

from model_service.front.engine_client.call import service_error
from model_service.front.engine_client.client import EngineClient
from model_service.front.metrics import ModelMetrics
from model_service.front.metrics.session_metrics import CloseReason
from model_service.front.quotas import Quotas
from model_service.front.sessions.replica import Replica, public_part
from model_service.front.sessions.session import Session
from model_service.protocol import (
    CloseSession,
    OpenSession,
    SessionAnswer,
    SessionDescription,
)
from rpc import identity, logging
from rpc.errors import Overloaded, SessionBusy
from rpc.pace import Pace

SWEEP_INTERVAL_S = 0.5

log = structlog.stdlib.get_logger("model_service.front.sessions.registry")


class SessionRegistry:
    """All open sessions. Used by the event loop only.

    Callers that can be told apart, by their certificates, have sessions of their
    own: to others these do not exist.
    """

    def __init__(
        self,
        engine: EngineClient,
        metrics: ModelMetrics,
        quotas: Quotas,
        replica: Replica,
        *,
        max_sessions: int,
        max_rows: int,
    ) -> None:
        """Starts without sessions.

        Args:
            engine: what is told when a session ends.
            metrics: where opening and closing is recorded.
            quotas: what each caller may have.
            replica: this replica, which the names of its sessions begin with.
            max_sessions: most sessions.
            max_rows: most rows of all sessions.
        """
        self._engine = engine
        self._metrics = metrics
        self._quotas = quotas
        self._replica = replica
        self._max_sessions = max_sessions
        self._max_rows = max_rows
        places = max(1, max_sessions)
        self._pace = Pace(places, usual_s=float(places))  # one a second, until it is measured
        self._sessions: dict[str, Session] = {}
        self._serials = count(1)

    def new_id(self) -> str:
        """Makes up the name of a session."""
        return self._replica.new_session_id()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, session: Session, command: OpenSession) -> SessionAnswer:
        """Opens a session. Nothing is left of one that fails.

        Args:
            session: the session.
            command: what the engine is told.

        Raises:
            Overloaded: there are too many sessions, or rows of sessions.
            ServiceError: the engine refused it, or a row failed.
        """
        self.admit([session])
        close = CloseSession(session.session_id)
        try:
            with self.hold(session):
                answer = await self._engine.ask(command, undo=[close])
                for row in answer.rows:
                    if row.failure is not None:
                        self._engine.tell(close)
                        raise service_error(row.failure)
        except BaseException:
            self.remove(session, "error")
            raise
        session.apply(answer)
        return answer

    @contextmanager
    def use(self, session_id: str) -> Iterator[Session]:
        """Takes a session for one call; its idle time starts again when the call ends.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionOnOtherReplica: it is not this replica's.
            SessionBusy: another call has it.
        """
        session = self._find(session_id)
        if session.busy:
            raise SessionBusy(session_id)
        with self.hold(session):
            yield session

    @contextmanager
    def hold(self, session: Session) -> Iterator[None]:
        """Keeps a session in use that nobody uses; its idle time starts when this ends.

        One that has just been admitted is held whatever has passed since it was planned.
        """
        session.busy = True
        self._record()
        try:
            yield
        finally:
            session.busy = False
            session.used_at = time.monotonic()
            self._record()

    def touch(self, session_id: str, ttl_s: float | None) -> Session:
        """Starts the idle time of a session again, also while a call uses it.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionOnOtherReplica: it is not this replica's.
        """
        session = self._find(session_id)
        session.used_at = time.monotonic()
        if ttl_s is not None:
            session.ttl_s = ttl_s
        return session

    def list(self, after_serial: int, limit: int) -> list[Session]:
        """Returns the caller's sessions in order of opening, those after a serial number."""
        return [*islice((s for s in self.own() if s.serial > after_serial), limit)]

    def own(self) -> Sequence[Session]:
        """Returns the caller's sessions in order of opening."""
        owner = identity.caller()
        return [s for s in self._sessions.values() if s.owner == owner and not s.expired]

    async def close(self, session_id: str) -> tuple[Session, SessionDescription]:
        """Closes a session for its client, and returns what it was.

        Raises:
            SessionNotFound: it does not exist or has expired.
            SessionOnOtherReplica: it is not this replica's.
            SessionBusy: a call has it that does not generate.
        """
        session = self._find(session_id)
        if session.busy and not session.generating:
            raise SessionBusy(session_id)
        self.remove(session, "client")
        return session, await self._engine.ask(CloseSession(session_id))

    def used_within(self, seconds: float) -> bool:
        """Says whether a call uses a session, or has lately."""
        since = time.monotonic() - seconds
        return any(session.busy or session.used_at > since for session in self._sessions.values())

    async def expire_forever(self) -> None:
        """Closes sessions that have been idle for too long, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.expire()

    def expire(self) -> None:
        """Closes the sessions that have been idle for too long."""
        for session in [s for s in self._sessions.values() if s.expired]:
            self.remove(session, "idle_timeout")
            self._engine.tell(CloseSession(session.session_id))

    def admit(self, sessions: Sequence[Session]) -> None:
        """Adds sessions, all or none, that the engine does not have yet.

        Raises:
            QuotaExceeded: the caller may not have them.
            Overloaded: there are too many sessions, or rows of sessions.
        """
        self.expire()
        self._quotas.check_sessions(self.own(), sessions)
        if len(self._sessions) + len(sessions) > self._max_sessions:
            raise Overloaded("sessions", self._max_sessions, retry_delay_s=self._one_ends_s())
        self.check_rows(sum(session.num_rows for session in sessions))
        for session in sessions:
            session.serial = next(self._serials)
            self._sessions[session.session_id] = session
            _note(session)
            self._pace.taken(len(self._sessions), time.monotonic())
            self._metrics.sessions.opened()
        self._record()

    def check_rows(self, num_more: int) -> None:
        """Checks that there may be more rows.

        Raises:
            Overloaded: there may not.
        """
        num_rows = sum(session.num_rows for session in self._sessions.values())
        if num_rows + num_more > self._max_rows:
            raise Overloaded("session_rows", self._max_rows, retry_delay_s=self._one_ends_s())

    def _one_ends_s(self) -> float:
        """Returns the time until a session is closed, in seconds."""
        return 1 / self._pace.per_second(time.monotonic())

    def _find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None or session.expired or session.owner != identity.caller():
            raise self._replica.absence(session_id)
        _note(session)
        return session

    def remove(self, session: Session, reason: CloseReason) -> None:
        """Forgets a session; the engine is told by the caller.

        Args:
            session: the session, which may be gone already.
            reason: label of the metric.
        """
        session.closed = True
        if self._sessions.pop(session.session_id, None) is not None:
            self._pace.freed(1, len(self._sessions), time.monotonic())
            self._metrics.sessions.closed(reason, time.monotonic() - session.opened_at)
            self._record()

    def _record(self) -> None:
        active = sum(session.busy for session in self._sessions.values())
        self._metrics.sessions.open(active, len(self._sessions) - active)


def _note(session: Session) -> None:
    """Names a session in the line of its call, by a part of its name: the whole is a secret."""
    logging.note(session=public_part(session.session_id))
