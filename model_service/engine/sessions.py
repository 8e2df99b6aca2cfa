"""All sessions: rows whose tokens the client chooses, step by step.

Between calls a session's rows are idle and keep their slots. A call makes rows
active with the tokens it appends; each row rests again as soon as the model has
seen them, and the call is answered when the last one does. A call that is
cancelled before is undone as a whole.
"""

from collections.abc import Callable

from torch import Tensor

from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.scheduler import Scheduler
from model_service.engine.scores import Reporter
from model_service.engine.sequence import Sequence
from model_service.engine.session import (
    Call,
    Session,
    put_back,
    step_refusal,
    truncation_refusal,
)
from model_service.engine.vocabulary import RevisionRows
from model_service.generation import ScoreSelection
from model_service.messages import (
    CloseSession,
    DescribeSession,
    Event,
    Failure,
    ForkSession,
    OpenSession,
    Rejected,
    SelectSessionRows,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    SessionRowAnswer,
    StepSession,
    TruncateSession,
)


class Sessions:
    """All sessions. Part of the engine, on its thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        reporter: Reporter,
        revisions: list[RevisionRows],
        *,
        kv_bytes_per_token: int,
        copy_slot: Callable[[int, int, int], None],
        emit: Callable[[Event], None],
    ) -> None:
        self._scheduler = scheduler
        self._reporter = reporter
        self._revisions = revisions
        self._kv_bytes_per_token = kv_bytes_per_token
        self._copy_slot = copy_slot
        self._emit = emit
        self._sessions: dict[str, Session] = {}
        self._by_row: dict[Sequence, Session] = {}

    def open(self, command: OpenSession) -> None:
        """Reserves the rows' slots at once, or refuses; then prefills."""
        rows = [
            Sequence(
                request_id=command.request_id,
                row=row,
                token_ids=list(spec.prompt_token_ids),
                config=command.config,
                seed=spec.seed,
                vocabulary_size=self._revisions[command.revision].size,
                revision=command.revision,
                max_length=command.max_length,
                kind="session",
            )
            for row, spec in enumerate(command.sequences)
        ]
        if not self._admit(command.request_id, rows):
            return
        session = self._add(command.session_id, rows)
        self._start(session, Call(command.request_id, command.selection), rows)

    def _admit(self, request_id: int, rows: list[Sequence], held: int = 0) -> bool:
        """Reserves what rows need, or rejects the call that wants them.

        Args:
            request_id: the call.
            rows: the rows, all new.
            held: tokens of KV cache that their session keeps.
        """
        needed = sum(seq.max_length for seq in rows) + held
        limit = self._scheduler.kv_session_limit
        if needed > limit:
            arguments = {"kv_tokens": needed, "limit_tokens": limit}
            self._reject(request_id, Failure("KVCacheExceeded", arguments))
            return False
        if not self._scheduler.open(rows):
            resource = {"resource": "kv_tokens", "limit": limit}
            failure = Failure("Overloaded", {**resource, "retry_delay_s": 1.0})
            self._reject(request_id, failure)
            return False
        return True

    def _add(self, session_id: str, rows: list[Sequence]) -> Session:
        session = Session(rows)
        self._sessions[session_id] = session
        self._by_row.update(dict.fromkeys(rows, session))
        return session

    def step(self, command: StepSession) -> None:
        """Appends tokens to rows and makes them active. Refuses as a whole or not at all."""
        session = self._take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := step_refusal(session, command):
            self._reject(command.request_id, refusal)
            return
        call = Call(
            command.request_id,
            command.selection,
            command.sample,
            command.append,
            command.look_ahead,
            session.marks(),
        )
        stepped = []
        for seq, step in zip(session.rows, command.rows, strict=True):
            seq.first_given = seq.num_cached
            seq.token_ids += step.token_ids
            if seq.num_pending:
                stepped.append(seq)
            else:
                call.answers[seq.row] = SessionRowAnswer(len(seq.token_ids))
        self._start(session, call, stepped)

    def _start(self, session: Session, call: Call, rows: list[Sequence]) -> None:
        """Begins a call whose rows are active; answers at once when none is."""
        session.call = call
        for seq in rows:
            self._scheduler.resume(seq)
            seq.selection = call.selection
            describes_given = call.selection.positions in {"all", "list"}
            seq.prompt_selection = call.selection if describes_given else None
            seq.given_scores = []
        if not rows:
            self._complete(session)

    def answer(self, draw: Draw, choice: Choice, logits: Tensor) -> None:
        """Records the outcome of a row's step and lets the row rest.

        Args:
            draw: the row.
            choice: the token the sampler would choose, or why there is none.
            logits: `[R, V]` float32 of the step.
        """
        seq = draw.sequence
        session = self._by_row[seq]
        call = session.call
        assert call is not None
        self._scheduler.rest(seq)
        position = len(seq.token_ids)
        token_id = choice.token_id if call.sample else None
        failure = choice.failure if _matters(choice.failure, call) else None
        scores, seq.given_scores = seq.given_scores, []
        if failure is None and _wants_last(call.selection, position - 1 - seq.first_given):
            row = logits[draw.row][: seq.vocabulary_size]
            report = self._reporter.report
            scores.append(report(call.selection, position, token_id, row, choice.scores))
        reason = None
        if token_id is not None:
            reason = seq.finish_reason(token_id)
            if call.append and position < seq.max_length:
                seq.token_ids.append(token_id)
        if call.look_ahead:
            put_back(seq, call.marks[seq.row])
        call.answers[seq.row] = SessionRowAnswer(
            len(seq.token_ids), scores, token_id, reason, failure
        )
        if len(call.answers) == len(session.rows):
            self._complete(session)

    def _complete(self, session: Session) -> None:
        call, session.call = session.call, None
        assert call is not None
        rows = [call.answers[row] for row in range(len(session.rows))]
        self._emit(SessionAnswer(call.request_id, rows, self._kv_bytes(session)))

    def cancel(self, request_id: int) -> None:
        """Undoes the step that is this call, if it is under way: its rows are as before it.

        A session that is being opened is left to the `CloseSession` that follows.
        """
        for session in self._sessions.values():
            call = session.call
            if call is not None and call.request_id == request_id and call.marks:
                self._undo(session, call)
                return

    def _undo(self, session: Session, call: Call) -> None:
        found = list(call.answers.values())
        for seq, mark in zip(session.rows, call.marks, strict=True):
            if seq.given_scores:
                found.append(SessionRowAnswer(mark.num_tokens, seq.given_scores))
            if seq.row not in call.answers:
                self._scheduler.rest(seq)
            put_back(seq, mark)
        session.call = None
        if any(answer.scores for answer in found):
            self._emit(SessionAnswer(call.request_id, found, self._kv_bytes(session)))

    def truncate(self, command: TruncateSession) -> None:
        """Forgets tokens of rows, of all of them or of none."""
        session = self._take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := truncation_refusal(session, command.lengths):
            self._reject(command.request_id, refusal)
            return
        for seq, length in zip(session.rows, command.lengths, strict=True):
            seq.truncate(length)
        self._answer_positions(command.request_id, session)

    def fork(self, command: ForkSession) -> None:
        """Copies rows to new sessions, to all of them or to none."""
        session = self._take(command.request_id, command.session_id)
        if session is None:
            return
        sources = [session.rows[index] for index in command.rows]
        forks = [[seq.copy(row) for row, seq in enumerate(sources)] for _ in command.fork_ids]
        if not self._admit(command.request_id, [seq for rows in forks for seq in rows]):
            return
        num_copied = 0
        for session_id, rows in zip(command.fork_ids, forks, strict=True):
            added = self._add(session_id, rows)
            num_copied += sum(map(self._copy_cache, sources, rows))
        self._emit(
            SessionForked(
                command.request_id,
                positions=[len(seq.token_ids) for seq in sources],
                kv_bytes=self._kv_bytes(added),
                copied_bytes=num_copied * self._kv_bytes_per_token,
            )
        )

    def select(self, command: SelectSessionRows) -> None:
        """Replaces the rows. A row that is selected keeps its slot; only repeats are copied."""
        session = self._take(command.request_id, command.session_id)
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
        self._answer_positions(command.request_id, session)

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
        if not self._admit(request_id, more, held):
            return False
        for seq in dropped:
            del self._by_row[seq]
            self._scheduler.remove(seq)
        admitted = self._scheduler.open(reused)
        assert admitted, "Rows do not fit where as many were. This is a bug."
        self._by_row.update(dict.fromkeys(new, session))
        for source, seq in copies:
            self._copy_cache(source, seq)
        return True

    def _copy_cache(self, source: Sequence, target: Sequence) -> int:
        """Copies what is cached of a row, and returns how many tokens that is."""
        assert source.slot is not None
        assert target.slot is not None
        self._copy_slot(source.slot, target.slot, source.num_cached)
        return source.num_cached

    def _answer_positions(self, request_id: int, session: Session) -> None:
        rows = [SessionRowAnswer(len(seq.token_ids)) for seq in session.rows]
        self._emit(SessionAnswer(request_id, rows, self._kv_bytes(session)))

    def _take(self, request_id: int, session_id: str) -> Session | None:
        """Finds a session that no call uses, or rejects the call that wants it."""
        session = self._sessions.get(session_id)
        if session is not None and session.call is None:
            return session
        error = "SessionNotFound" if session is None else "SessionBusy"
        self._reject(request_id, Failure(error, {"session_id": session_id}))
        return None

    def describe(self, command: DescribeSession) -> None:
        """Returns the tokens of a session's rows."""
        self._describe(command.request_id, command.session_id)

    def close(self, command: CloseSession) -> None:
        """Frees a session. A call that uses it fails."""
        self._describe(command.request_id, command.session_id)
        session = self._sessions.pop(command.session_id, None)
        if session is None:
            return
        for seq in session.rows:
            del self._by_row[seq]
            self._scheduler.remove(seq)
        if session.call is not None:
            failure = Failure("SessionNotFound", {"session_id": command.session_id})
            self._reject(session.call.request_id, failure)

    def _describe(self, request_id: int, session_id: str) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            self._reject(request_id, Failure("SessionNotFound", {"session_id": session_id}))
            return
        rows = [list(seq.token_ids) for seq in session.rows]
        self._emit(SessionDescription(request_id, rows, self._kv_bytes(session)))

    def _kv_bytes(self, session: Session) -> int:
        return session.kv_tokens * self._kv_bytes_per_token

    def _reject(self, request_id: int, failure: Failure) -> None:
        self._emit(Rejected(request_id, failure))


def _matters(failure: Failure | None, call: Call) -> bool:
    """Whether a failure to choose is the caller's concern.

    That every token is excluded matters only to a caller who wants one chosen;
    logits that are not numbers matter to everybody.
    """
    return failure is not None and (call.sample or failure.error == "NonFiniteLogits")


def _wants_last(selection: ScoreSelection, index: int) -> bool:
    return selection.positions != "list" or index in selection.position_list
