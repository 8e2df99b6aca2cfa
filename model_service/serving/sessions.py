"""Sessions as callers know them: names, expiry, and one call at a time.

The engine keeps their tokens and KV cache; here is who may use them and until
when.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice

import structlog

from model_service.engine_client.client import EngineClient
from model_service.engine_client.failure import service_error
from model_service.generation import ScoreSelection
from model_service.messages import SessionAnswer, SessionDescription
from model_service.metrics import ModelMetrics
from model_service.serving.session_opening import Opening
from rpc.errors import Overloaded, SessionBusy, SessionNotFound

SWEEP_INTERVAL_S = 0.5
RETRY_DELAY_S = 1.0

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

    def apply(self, answer: SessionAnswer) -> None:
        """Takes over the state that the engine answered with."""
        self.positions = [row.position for row in answer.rows]
        self.kv_bytes = answer.kv_bytes


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

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, session: Session) -> SessionAnswer:
        """Opens a session. Nothing is left of one that fails.

        Raises:
            Overloaded: there are too many sessions, or rows of sessions.
            ServiceError: the engine refused it, or a row failed.
        """
        self._admit(session)
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

    def _admit(self, session: Session) -> None:
        self.expire()
        num_rows = sum(other.num_rows for other in self._sessions.values())
        if len(self._sessions) >= self._max_sessions:
            raise Overloaded("sessions", self._max_sessions, retry_delay_s=RETRY_DELAY_S)
        if num_rows + session.num_rows > self._max_rows:
            raise Overloaded("session_rows", self._max_rows, retry_delay_s=RETRY_DELAY_S)
        session.serial = next(self._serials)
        self._sessions[session.session_id] = session
        self._metrics.session_opened()
        self._record()

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


def new_session_id() -> str:
    """Returns a name that nobody can guess: 128 random bits."""
    return secrets.token_urlsafe(16)
