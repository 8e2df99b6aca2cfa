"""Which sessions there are, whose a row is, and what they may hold."""

from collections.abc import Callable

from model_service.engine.calls.sequence_building import SequenceBuilder
from model_service.engine.calls.session import Session
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import (
    Event,
    Failure,
    GenerateSession,
    OpenSession,
    Rejected,
    SessionAnswer,
    SessionRowAnswer,
)


class SessionTable:
    """All sessions, by name and by row.

    Attributes:
        kv_bytes_per_token: bytes that a token takes over all layers.
        emit: sends an event.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        builder: SequenceBuilder,
        *,
        kv_bytes_per_token: int,
        emit: Callable[[Event], None],
    ) -> None:
        self.kv_bytes_per_token = kv_bytes_per_token
        self.emit = emit
        self._scheduler = scheduler
        self._builder = builder
        self._sessions: dict[str, Session] = {}
        self._by_row: dict[Sequence, Session] = {}

    def find(self, session_id: str) -> Session | None:
        """Returns a session, or None."""
        return self._sessions.get(session_id)

    def of_row(self, seq: Sequence) -> Session:
        """Returns the session that a row belongs to."""
        return self._by_row[seq]

    def of_call(self, request_id: int) -> Session | None:
        """Returns the session that a call is using, or None."""
        for session in self._sessions.values():
            if session.call is not None and session.call.request_id == request_id:
                return session
        return None

    def open(self, command: OpenSession | GenerateSession) -> Session | None:
        """Makes a session of what a command gave, or rejects rows that would never fit."""
        rows = [self._builder.resting(command, row) for row in range(len(command.sequences))]
        if not self.check_size(command.request_id, rows):
            return None
        return self.add(command.session_id, rows)

    def check_size(self, request_id: int, rows: list[Sequence]) -> bool:
        """Checks that rows can have slots at the same time, or rejects the call that wants that.

        Args:
            request_id: the call.
            rows: all rows of a session.
        """
        needed = sum(seq.max_length for seq in rows)
        limit = self._scheduler.kv_session_limit
        if needed > limit:
            arguments = {"kv_tokens": needed, "limit_tokens": limit}
            self.reject(request_id, Failure("KVCacheExceeded", arguments))
        return needed <= limit

    def add(self, session_id: str, rows: list[Sequence]) -> Session:
        """Adds a session."""
        session = Session(rows)
        self._sessions[session_id] = session
        self._by_row.update(dict.fromkeys(rows, session))
        return session

    def remove(self, session_id: str) -> Session | None:
        """Takes a session out and frees what its rows hold. Returns None if there is none."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.drop_rows(session.rows)
        return session

    def drop_rows(self, rows: list[Sequence]) -> None:
        """Takes rows out and frees what they hold."""
        for seq in rows:
            del self._by_row[seq]
            self._scheduler.remove(seq)

    def add_rows(self, session: Session, rows: list[Sequence]) -> None:
        """Notes whose rows these are."""
        self._by_row.update(dict.fromkeys(rows, session))

    def take(self, request_id: int, session_id: str) -> Session | None:
        """Finds a session that no call uses, or rejects the call that wants it."""
        session = self._sessions.get(session_id)
        if session is not None and session.call is None:
            return session
        error = "SessionNotFound" if session is None else "SessionBusy"
        self.reject(request_id, Failure(error, {"session_id": session_id}))
        return None

    def answer_positions(self, request_id: int, session: Session) -> None:
        """Answers a call with the positions of the rows."""
        rows = [SessionRowAnswer(len(seq.token_ids)) for seq in session.rows]
        self.emit(SessionAnswer(request_id, rows, self.kv_bytes(session)))

    def kv_bytes(self, session: Session) -> int:
        """Returns the bytes of KV cache that a session has reserved now."""
        return session.kv_tokens * self.kv_bytes_per_token

    def reject(self, request_id: int, failure: Failure) -> None:
        """Answers a call with a refusal."""
        self.emit(Rejected(request_id, failure))
