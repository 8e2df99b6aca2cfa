"""One session: rows of one client, and the call that uses them."""

from dataclasses import dataclass, field
from typing import Protocol

from model_service.engine.sequences.sequence import Mark, Sequence
from model_service.protocol import (
    Failure,
    OpenSession,
    SessionRowAnswer,
    StepRow,
    StepSession,
)


@dataclass(slots=True, eq=False)
class SessionStep:
    """A step that is under way; the first one of a session is its opening.

    Attributes:
        command: what was asked.
        marks: where the rows were before the step; empty while a session is opened.
        answers: outcomes so far, by row.
        recomputed: whether tokens pass through the model that had done so before.
    """

    command: OpenSession | StepSession
    marks: list[Mark] = field(default_factory=list)
    answers: dict[int, SessionRowAnswer] = field(default_factory=dict)
    recomputed: bool = False

    @property
    def request_id(self) -> int:
        """Names the call."""
        return self.command.request_id


class Use(Protocol):
    """A call that uses a session; `request_id` names it."""

    @property
    def request_id(self) -> int: ...


@dataclass(slots=True, eq=False)
class Session:
    """Rows of one client, all with room for as many tokens, and the call that uses them.

    Attributes:
        rows: the rows.
        call: what uses them, or None.
        generated_from: where they were before they generated, if that was the last
            that happened to them; empty otherwise.
    """

    rows: list[Sequence]
    call: Use | None = None
    generated_from: list[Mark] = field(default_factory=list)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that its rows have reserved now."""
        return sum(seq.max_length for seq in self.rows if seq.slot is not None)

    def marks(self) -> list[Mark]:
        """Returns where the rows are."""
        return [seq.mark() for seq in self.rows]


def step_refusal(session: Session, command: StepSession) -> Failure | None:
    """Says why a step cannot be applied, or None."""
    for seq, step in zip(session.rows, command.rows, strict=True):
        if refusal := _row_refusal(seq, step):
            return refusal
    return None


def continuation_refusal(session: Session) -> Failure | None:
    """Says why a session's rows cannot go on by themselves, or None."""
    for seq in session.rows:
        position = len(seq.token_ids)
        if not position:
            description = f"row {seq.row} has no tokens to go on from"
            return Failure("InvalidField", {"field": "session_id", "description": description})
        if position >= seq.max_length:
            return _no_room(seq, 1)
    return None


def truncation_refusal(session: Session, lengths: list[int]) -> Failure | None:
    """Says why rows cannot be cut to these lengths, or None."""
    for row, (seq, length) in enumerate(zip(session.rows, lengths, strict=True)):
        position = len(seq.token_ids)
        if not 0 <= length <= position:
            description = f"must be in [0, {position}], the row's position"
            return Failure(
                "InvalidField", {"field": f"positions[{row}]", "description": description}
            )
    return None


def _row_refusal(seq: Sequence, step: StepRow) -> Failure | None:
    position, expected = len(seq.token_ids), step.expected_position
    if expected is not None and expected != position:
        arguments = {"row": seq.row, "expected": expected, "current": position}
        return Failure("PositionConflict", arguments)
    if position + len(step.token_ids) > seq.max_length:
        return _no_room(seq, len(step.token_ids))
    return None


def _no_room(seq: Sequence, num_new_tokens: int) -> Failure:
    arguments = {
        "row": seq.row,
        "prompt_tokens": len(seq.token_ids),
        "new_tokens": num_new_tokens,
        "context_tokens": seq.max_length,
        "of_session": True,
    }
    return Failure("ContextLengthExceeded", arguments)
