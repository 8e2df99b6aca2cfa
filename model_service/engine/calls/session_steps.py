"""Steps of sessions: rows whose tokens the client chooses, from the first prompt on.

Between calls a session's rows are idle, and keep their slots until others need
them. A call makes rows active with the tokens it appends; each row rests again
as soon as the model has seen them, and the call is answered when the last one
does. A row without a slot waits for one, and its tokens pass through the model
again. A call that is cancelled before is undone as a whole.
"""

import time

from torch import Tensor

from model_service.engine.calls.scores import describe
from model_service.engine.calls.session import Session, SessionStep, step_refusal
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.sampling import row_failure
from model_service.engine.sampling.sampler import Choice
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.sequence import RowCall, Sequence
from model_service.protocol import (
    Failure,
    OpenSession,
    SessionAnswer,
    SessionRowAnswer,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection


class SessionSteps:
    """Opens and steps the sessions of a table. Part of the engine, on its thread."""

    def __init__(self, table: SessionTable, scheduler: Scheduler) -> None:
        self._table = table
        self._scheduler = scheduler

    def open(self, command: OpenSession) -> None:
        """Queues the rows for slots and prefill, or refuses rows that would never fit."""
        session = self._table.open(command)
        if session is None:
            return
        call = SessionStep(command)
        self._begin(session, call)
        self._run(session, call, session.rows)

    def step(self, command: StepSession) -> None:
        """Appends tokens to rows and makes them active. Refuses as a whole or not at all."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := step_refusal(session, command):
            self._table.reject(command.request_id, refusal)
            return
        call = SessionStep(command, session.marks())
        self._begin(session, call)
        stepped = []
        for seq, step in zip(session.rows, command.rows, strict=True):
            seq.give(step.token_ids)
            if len(seq.token_ids) > seq.num_passed:
                stepped.append(seq)
            else:
                call.answers[seq.row] = SessionRowAnswer(len(seq.token_ids))
        self._run(session, call, stepped)

    def _begin(self, session: Session, call: SessionStep) -> None:
        """Begins a call of all rows, also of those that sit it out."""
        session.call = call
        session.generated_from = []
        selection = call.command.selection
        describes_given = selection.positions in {"all", "list"}
        for seq in session.rows:
            seq.call = RowCall(
                call.request_id,
                self,
                selection,
                selection if describes_given else None,
                first_given=seq.num_passed,
            )

    def _run(self, session: Session, call: SessionStep, rows: list[Sequence]) -> None:
        """Makes the rows active that take part; answers at once when none does."""
        for seq in rows:
            call.recomputed |= seq.num_lost > seq.num_cached
            self._scheduler.resume(seq)
        if not rows:
            self._complete(session)

    def answer(self, seq: Sequence, choice: Choice, logits: Tensor) -> None:
        """Records the outcome of a row's step and lets the row rest.

        Args:
            seq: the row.
            choice: the token the sampler would choose, or why there is none.
            logits: `[W]` float32 that it would be chosen from.
        """
        session = self._table.of_row(seq)
        call = session.call
        assert isinstance(call, SessionStep)
        command, selection = call.command, call.command.selection
        self._scheduler.rest(seq)
        position = len(seq.token_ids)
        token_id = choice.token_id if command.sample else None
        if choice.failure is not None and choice.failure.error == "NonFiniteLogits":
            seq.withdraw()
        failure = choice.failure if _matters(choice.failure, command) else seq.call.given_failure
        scores = seq.call.take_given_scores()
        reason = None
        try:
            if failure is None and _wants_last(selection, position - 1 - seq.call.first_given):
                scores.append(describe(seq, selection, position, token_id, logits, choice.scores))
            if token_id is not None:
                reason = seq.finish_reason(token_id)
        except Exception as error:
            failure = row_failure.internal(error)
        if token_id is not None and command.append and position < seq.max_length:
            seq.give([token_id])
        if isinstance(command, OpenSession) and command.pending:
            seq.give(list(command.pending[seq.row]))
        if isinstance(command, StepSession) and command.look_ahead:
            seq.put_back(call.marks[seq.row])
        call.answers[seq.row] = SessionRowAnswer(
            len(seq.token_ids), scores, token_id, reason, failure
        )
        if len(call.answers) == len(session.rows):
            self._complete(session)

    def _complete(self, session: Session) -> None:
        call, session.call = session.call, None
        assert isinstance(call, SessionStep)
        rows = [call.answers[row] for row in range(len(session.rows))]
        now = time.monotonic()
        begun = min((seq.call.prefill_start for seq in session.rows if seq.call.steps), default=now)
        self._table.emit(
            SessionAnswer(
                call.request_id,
                rows,
                self._table.kv_bytes(session),
                recomputed=call.recomputed,
                cached_tokens=sum(seq.call.num_reused for seq in session.rows),
                queue_s=begun - session.rows[0].call.arrival,
                run_s=now - begun,
            )
        )

    def fail(self, seq: Sequence, failure: Failure) -> None:
        """Undoes the step of a row that could not pass through the model, and rejects its call."""
        session = self._table.of_row(seq)
        call = session.call
        if not isinstance(call, SessionStep):  # another row has failed as well
            return
        # First, since undoing hands over the scores of other rows, which would be its answer.
        self._table.reject(call.request_id, failure)
        if isinstance(call.command, OpenSession):
            self._table.remove(call.command.session_id)
        else:
            self._undo(session, call)

    def cancel(self, request_id: int) -> None:
        """Undoes the step that is this call, if it is under way: its rows are as before it.

        A session that is being opened is left to the `CloseSession` that follows.
        """
        session = self._table.of_call(request_id)
        if session is not None and isinstance(session.call, SessionStep) and session.call.marks:
            self._undo(session, session.call)

    def _undo(self, session: Session, call: SessionStep) -> None:
        found = list(call.answers.values())
        for seq, mark in zip(session.rows, call.marks, strict=True):
            if seq.call.given_scores:
                found.append(SessionRowAnswer(mark.num_tokens, seq.call.given_scores))
            if seq.row not in call.answers:
                self._scheduler.rest(seq)
            seq.put_back(mark)
        session.call = None
        if any(answer.scores for answer in found):
            self._table.emit(SessionAnswer(call.request_id, found, self._table.kv_bytes(session)))


def _matters(failure: Failure | None, command: OpenSession | StepSession) -> bool:
    """Whether a failure to choose is the caller's concern.

    That every token is excluded matters only to a caller who wants one chosen, and
    that processors failed to one who wants scores, too; logits that are not
    numbers matter to every caller.
    """
    if failure is None or failure.error == "NonFiniteLogits":
        return failure is not None
    return command.sample or (failure.error != "NoTokenLeft" and command.selection.scores)


def _wants_last(selection: ScoreSelection, index: int) -> bool:
    return selection.positions != "list" or index in selection.position_list
