"""Changes of sessions' rows that no model takes part in: cut, copy, select."""

from collections.abc import Callable

from model_service.engine.scheduler import Scheduler
from model_service.engine.sequence import Sequence
from model_service.engine.session import Session, truncation_refusal
from model_service.engine.session_table import SessionTable
from model_service.messages import (
    ForkSession,
    SelectSessionRows,
    SessionForked,
    TruncateSession,
)


class SessionRows:
    """Applies commands at once, between two steps; each as a whole or not at all."""

    def __init__(
        self,
        table: SessionTable,
        scheduler: Scheduler,
        *,
        copy_slot: Callable[[int, int, int], None],
    ) -> None:
        """Changes the sessions of a table.

        Args:
            table: the sessions.
            scheduler: what rows are admitted by.
            copy_slot: copies the first so many tokens from one slot to another.
        """
        self._table = table
        self._scheduler = scheduler
        self._copy_slot = copy_slot

    def truncate(self, command: TruncateSession) -> None:
        """Forgets tokens of rows, of all of them or of none."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := truncation_refusal(session, command.lengths):
            self._table.reject(command.request_id, refusal)
            return
        for seq, length in zip(session.rows, command.lengths, strict=True):
            seq.truncate(length)
        self._table.answer_positions(command.request_id, session)

    def fork(self, command: ForkSession) -> None:
        """Copies rows to new sessions, to all of them or to none."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        sources = [session.rows[index] for index in command.rows]
        forks = [[seq.copy(row) for row, seq in enumerate(sources)] for _ in command.fork_ids]
        if not self._table.admit(command.request_id, [seq for rows in forks for seq in rows]):
            return
        num_copied = 0
        for session_id, rows in zip(command.fork_ids, forks, strict=True):
            added = self._table.add(session_id, rows)
            num_copied += sum(map(self._copy_cache, sources, rows))
        self._table.emit(
            SessionForked(
                command.request_id,
                positions=[len(seq.token_ids) for seq in sources],
                kv_bytes=self._table.kv_bytes(added),
                copied_bytes=num_copied * self._table.kv_bytes_per_token,
            )
        )

    def select(self, command: SelectSessionRows) -> None:
        """Replaces the rows. A row that is selected keeps its slot; only repeats are copied."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        kept, copies, rows = set[int](), [], []
        for row, index in enumerate(command.rows):
            seq = session.rows[index]
            if index in kept:
                source, seq = seq, seq.copy(row)
                copies.append((source, seq))
            kept.add(index)
            rows.append(seq)
        dropped = [seq for index, seq in enumerate(session.rows) if index not in kept]
        if not self._replace(command.request_id, session, dropped, copies):
            return
        for row, seq in enumerate(rows):
            seq.row = row
        session.rows = rows
        self._table.answer_positions(command.request_id, session)

    def _replace(
        self,
        request_id: int,
        session: Session,
        dropped: list[Sequence],
        copies: list[tuple[Sequence, Sequence]],
    ) -> bool:
        """Frees rows and makes copies of others in their place; or rejects the call.

        What the dropped rows hold counts as room, so a selection that is not
        larger than the session is never refused. The check comes first: nothing
        is dropped by a call that is rejected.
        """
        new = [seq for _, seq in copies]
        reused, more = new[: len(dropped)], new[len(dropped) :]
        held = session.kv_tokens
        if not self._table.admit(request_id, more, held):
            return False
        self._table.drop_rows(dropped)
        admitted = self._scheduler.open(reused)
        assert admitted, "Rows do not fit where as many were. This is a bug."
        self._table.add_rows(session, new)
        for source, seq in copies:
            self._copy_cache(source, seq)
        return True

    def _copy_cache(self, source: Sequence, target: Sequence) -> int:
        """Copies what is cached of a row, and returns how many tokens that is."""
        assert source.slot is not None
        assert target.slot is not None
        self._copy_slot(source.slot, target.slot, source.num_cached)
        return source.num_cached
