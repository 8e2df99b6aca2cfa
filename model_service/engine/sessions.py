"""Sessions: rows whose tokens the client chooses, step by step.

Between calls a session's rows are idle and keep their slots. A call makes rows
active with the tokens it appends; each row rests again as soon as the model has
seen them, and the call is answered when the last one does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.scheduler import Scheduler
from model_service.engine.scores import Reporter
from model_service.engine.sequence import Sequence
from model_service.engine.vocabulary import RevisionRows
from model_service.generation import ScoreSelection
from model_service.messages import (
    CloseSession,
    DescribeSession,
    Event,
    Failure,
    OpenSession,
    Rejected,
    SessionAnswer,
    SessionDescription,
    SessionRowAnswer,
    StepRow,
    StepSession,
)


@dataclass(slots=True, eq=False)
class Call:
    """An `OpenSession` or `StepSession` that is under way."""

    request_id: int
    selection: ScoreSelection
    sample: bool = False
    append: bool = False
    answers: dict[int, SessionRowAnswer] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Session:
    """Rows of one client, and the call that uses them."""

    rows: list[Sequence]
    call: Call | None = None


class Sessions:
    """All sessions. Part of the engine, on its thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        reporter: Reporter,
        revisions: list[RevisionRows],
        *,
        kv_bytes_per_token: int,
        emit: Callable[[Event], None],
    ) -> None:
        self._scheduler = scheduler
        self._reporter = reporter
        self._revisions = revisions
        self._kv_bytes_per_token = kv_bytes_per_token
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
        needed = command.max_length * len(rows)
        limit = self._scheduler.kv_session_limit
        if needed > limit:
            arguments = {"kv_tokens": needed, "limit_tokens": limit}
            self._reject(command.request_id, Failure("KVCacheExceeded", arguments))
            return
        if not self._scheduler.open(rows):
            resource = {"resource": "kv_tokens", "limit": limit}
            failure = Failure("Overloaded", {**resource, "retry_delay_s": 1.0})
            self._reject(command.request_id, failure)
            return
        session = Session(rows)
        self._sessions[command.session_id] = session
        self._by_row.update(dict.fromkeys(rows, session))
        self._start(session, Call(command.request_id, command.selection), rows)

    def step(self, command: StepSession) -> None:
        """Appends tokens to rows and makes them active. Refuses as a whole or not at all."""
        session = self._sessions.get(command.session_id)
        if session is None:
            failure = Failure("SessionNotFound", {"session_id": command.session_id})
            self._reject(command.request_id, failure)
            return
        if refusal := _refusal(session, command):
            self._reject(command.request_id, refusal)
            return
        call = Call(command.request_id, command.selection, command.sample, command.append)
        stepped = []
        for seq, step in zip(session.rows, command.rows, strict=True):
            seq.first_given = seq.num_cached
            seq.token_ids += step.token_ids
            if seq.num_pending:
                stepped.append(seq)
                self._scheduler.resume(seq)
            else:
                call.answers[seq.row] = SessionRowAnswer(len(seq.token_ids))
        self._start(session, call, stepped)

    def _start(self, session: Session, call: Call, rows: list[Sequence]) -> None:
        """Begins a call whose rows are active; answers at once when none is."""
        session.call = call
        for seq in rows:
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
        return sum(seq.max_length for seq in session.rows) * self._kv_bytes_per_token

    def _reject(self, request_id: int, failure: Failure) -> None:
        self._emit(Rejected(request_id, failure))


def _refusal(session: Session, command: StepSession) -> Failure | None:
    """Says why a step cannot be applied, or None."""
    if session.call is not None:
        return Failure("SessionBusy", {"session_id": command.session_id})
    for seq, step in zip(session.rows, command.rows, strict=True):
        if refusal := _row_refusal(seq, step):
            return refusal
    return None


def _row_refusal(seq: Sequence, step: StepRow) -> Failure | None:
    position, expected = len(seq.token_ids), step.expected_position
    if expected is not None and expected != position:
        arguments = {"row": seq.row, "expected": expected, "current": position}
        return Failure("PositionConflict", arguments)
    if position + len(step.token_ids) > seq.max_length:
        arguments = {
            "row": seq.row,
            "prompt_tokens": position,
            "new_tokens": len(step.token_ids),
            "context_tokens": seq.max_length,
        }
        return Failure("ContextLengthExceeded", arguments)
    return None


def _matters(failure: Failure | None, call: Call) -> bool:
    """Whether a failure to choose is the caller's concern.

    That every token is excluded matters only to a caller who wants one chosen;
    logits that are not numbers matter to everybody.
    """
    return failure is not None and (call.sample or failure.error == "NonFiniteLogits")


def _wants_last(selection: ScoreSelection, index: int) -> bool:
    return selection.positions != "list" or index in selection.position_list
