"""What is done to sessions without the model: cut, copy, select, rebind, describe, close."""

from model_service.engine.calls.continuations import Continuation
from model_service.engine.calls.session import truncation_refusal
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.schedule.places import Places
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import (
    CloseSession,
    DescribeSession,
    Failure,
    ForkSession,
    RebindSession,
    SelectSessionRows,
    SequenceTokens,
    SessionDescription,
    SessionForked,
    TruncateSession,
)


class SessionRows:
    """Applies commands at once, between two steps; each as a whole or not at all.

    A copy gets a slot, with what is cached of its original, if one is free.
    Otherwise only its tokens are copied, and pass through the model when they are
    needed.
    """

    def __init__(
        self,
        table: SessionTable,
        scheduler: Scheduler,
        places: Places,
        revisions: list[RevisionRows],
    ) -> None:
        """Changes the sessions of a table.

        Args:
            table: the sessions.
            scheduler: what rows get their slots from.
            places: what the slots hold.
            revisions: sizes of the vocabulary; grows in place.
        """
        self._table = table
        self._scheduler = scheduler
        self._places = places
        self._revisions = revisions

    def truncate(self, command: TruncateSession) -> None:
        """Forgets tokens of rows, of all of them or of none.

        Where rows are cut back to where they last generated from, as by a client that
        left before it had read all, they are as they were, pending tokens too.
        """
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := truncation_refusal(session, command.lengths):
            self._table.reject(command.request_id, refusal)
            return
        marks = session.generated_from
        if [mark.num_tokens for mark in marks] == command.lengths:
            for seq, mark in zip(session.rows, marks, strict=True):
                seq.put_back(mark)
        else:
            for seq, length in zip(session.rows, command.lengths, strict=True):
                seq.truncate(length)
        session.generated_from = []
        self._table.answer_positions(command.request_id, session)

    def fork(self, command: ForkSession) -> None:
        """Copies rows to new sessions, to all of them or to none."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        sources = [session.rows[index] for index in command.rows]
        if not self._table.check_size(command.request_id, sources):
            return
        num_copied = 0
        for session_id in command.fork_ids:
            rows = [seq.copy(row) for row, seq in enumerate(sources)]
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
        if not self._table.check_size(command.request_id, rows):
            return
        self._table.drop_rows([seq for i, seq in enumerate(session.rows) if i not in kept])
        self._table.add_rows(session, [seq for _, seq in copies])
        for source, seq in copies:
            self._copy_cache(source, seq)
        for row, seq in enumerate(rows):
            seq.row = row
        session.rows = rows
        session.generated_from = []
        self._table.answer_positions(command.request_id, session)

    def rebind(self, command: RebindSession) -> None:
        """Moves all rows to a newer revision of the vocabulary."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        for seq in session.rows:
            seq.rebind(self._revisions[command.revision])
        self._table.answer_positions(command.request_id, session)

    def describe(self, command: DescribeSession) -> None:
        """Returns the tokens of a session's rows."""
        self._describe(command.request_id, command.session_id)

    def close(self, command: CloseSession) -> None:
        """Frees a session. What it generates ends where it is; another call that uses it fails."""
        self._describe(command.request_id, command.session_id)
        session = self._table.remove(command.session_id)
        if session is None or session.call is None:
            return
        call = session.call
        if isinstance(call, Continuation):
            for row in sorted(call.running):
                finish = session.rows[row].finish("cancelled")
                self._table.emit(SequenceTokens(call.request_id, row, [], finish=finish))
        else:
            failure = Failure("SessionNotFound", {"session_id": command.session_id})
            self._table.reject(call.request_id, failure)

    def _describe(self, request_id: int, session_id: str) -> None:
        session = self._table.find(session_id)
        if session is None:
            self._table.reject(request_id, Failure("SessionNotFound", {"session_id": session_id}))
            return
        rows = [list(seq.token_ids) for seq in session.rows]
        pending = tuple(len(seq.token_ids) - seq.num_passed for seq in session.rows)
        kv_bytes = self._table.kv_bytes(session)
        self._table.emit(SessionDescription(request_id, rows, kv_bytes, pending))

    def _copy_cache(self, source: Sequence, target: Sequence) -> int:
        """Copies what is cached of a row, if anything can be, and returns how many tokens."""
        if source.slot is None or not self._scheduler.settle(target):
            return 0
        self._places.copy(source, target)
        return target.num_cached
