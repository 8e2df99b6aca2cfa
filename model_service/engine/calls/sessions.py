"""Calls of sessions: rows whose tokens the client chooses, step by step.

Between calls a session's rows are idle, and keep their slots until others need
them. A call makes rows active with the tokens it appends; each row rests again
as soon as the model has seen them, and the call is answered when the last one
does. A row without a slot waits for one, and its tokens pass through the model
again. A call that is cancelled before is undone as a whole.
"""

from torch import Tensor

from model_service.engine.calls.continuations import Continuation
from model_service.engine.calls.scores import describe
from model_service.engine.calls.session import Call, Session, put_back, step_refusal
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences import row_failure
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import (
    CloseSession,
    DescribeSession,
    Failure,
    OpenSession,
    SequenceTokens,
    SessionAnswer,
    SessionDescription,
    SessionRowAnswer,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection


class Sessions:
    """Opens, steps and closes the sessions of a table. Part of the engine, on its thread."""

    def __init__(
        self,
        table: SessionTable,
        scheduler: Scheduler,
        revisions: list[RevisionRows],
    ) -> None:
        self._table = table
        self._scheduler = scheduler
        self._revisions = revisions

    def open(self, command: OpenSession) -> None:
        """Queues the rows for slots and prefill, or refuses rows that would never fit."""
        session = self._table.open(command, self._revisions)
        if session is None:
            return
        call = Call(command.request_id, command.selection, command.sample, command.append)
        self._start(session, call, session.rows)

    def step(self, command: StepSession) -> None:
        """Appends tokens to rows and makes them active. Refuses as a whole or not at all."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := step_refusal(session, command):
            self._table.reject(command.request_id, refusal)
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
            seq.first_given = seq.num_passed
            seq.token_ids += step.token_ids
            if len(seq.token_ids) > seq.num_passed:
                stepped.append(seq)
            else:
                call.answers[seq.row] = SessionRowAnswer(len(seq.token_ids))
        self._start(session, call, stepped)

    def _start(self, session: Session, call: Call, rows: list[Sequence]) -> None:
        """Begins a call in which rows take part; answers at once when none does."""
        session.call = call
        session.generated_from = []
        for seq in session.rows:
            seq.num_reused, seq.first_token = 0, 0.0
        for seq in rows:
            seq.request_id = call.request_id
            call.recomputed |= seq.num_lost > seq.num_cached
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
        session = self._table.of_row(seq)
        call = session.call
        assert isinstance(call, Call)
        self._scheduler.rest(seq)
        position = len(seq.token_ids)
        token_id = choice.token_id if call.sample else None
        if choice.failure is not None and choice.failure.error == "NonFiniteLogits":
            seq.salt = None  # no other sequence shall start from here
        failure = choice.failure if _matters(choice.failure, call) else seq.given_failure
        scores, seq.given_scores, seq.given_failure = seq.given_scores, [], None
        reason = None
        try:
            if failure is None and _wants_last(call.selection, position - 1 - seq.first_given):
                row, revision = logits[draw.row], self._revisions[seq.revision]
                scores.append(
                    describe(seq, call.selection, position, token_id, row, choice.scores, revision)
                )
            if token_id is not None:
                reason = seq.finish_reason(token_id)
        except Exception as error:
            failure = row_failure.internal(error)
        if token_id is not None and call.append and position < seq.max_length:
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
        assert isinstance(call, Call)
        rows = [call.answers[row] for row in range(len(session.rows))]
        self._table.emit(
            SessionAnswer(
                call.request_id,
                rows,
                self._table.kv_bytes(session),
                recomputed=call.recomputed,
                cached_tokens=sum(seq.num_reused for seq in session.rows),
            )
        )

    def cancel(self, request_id: int) -> None:
        """Undoes the step that is this call, if it is under way: its rows are as before it.

        A session that is being opened is left to the `CloseSession` that follows.
        """
        session = self._table.of_call(request_id)
        if session is not None and isinstance(session.call, Call) and session.call.marks:
            self._undo(session, session.call)

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
            self._table.emit(SessionAnswer(call.request_id, found, self._table.kv_bytes(session)))

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
        self._table.emit(SessionDescription(request_id, rows, self._table.kv_bytes(session)))


def _matters(failure: Failure | None, call: Call) -> bool:
    """Whether a failure to choose is the caller's concern.

    That every token is excluded matters only to a caller who wants one chosen, and
    that processors failed to one who wants scores, too; logits that are not
    numbers matter to every caller.
    """
    if failure is None or failure.error == "NonFiniteLogits":
        return failure is not None
    return call.sample or (failure.error != "NoTokenLeft" and call.selection.scores)


def _wants_last(selection: ScoreSelection, index: int) -> bool:
    return selection.positions != "list" or index in selection.position_list
