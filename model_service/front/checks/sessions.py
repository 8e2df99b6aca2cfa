"""What calls of sessions ask: time and room, a step, a fork, a selection of rows."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import logits_session_service_pb2

from model_service.front.checks.selection import read_selection
from model_service.protocol import StepRow, StepSession
from model_service.protocol.generation import ScoreSelection
from rpc.errors import ContextLengthExceeded
from wire import times
from wire.token_ids import NONE, check_token_ids
from wire.violations import Violations

MIN_TTL_S = 1.0
MAX_STEP_ID_LENGTH = 128


def new_session_id() -> str:
    """Returns a name that cannot be guessed: 128 random bits."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """The server's terms.

    Attributes:
        ttl_s: idle time of a session that asks for none.
        max_ttl_s: longest idle time that can be asked for.
        new_tokens: room beyond what is needed in a session that asks for no length.
        new_id: makes up the name of a session.
    """

    ttl_s: float
    max_ttl_s: float
    new_tokens: int
    new_id: Callable[[], str] = new_session_id

    def read_ttl(self, ttl: Duration, violations: Violations, field: str = "ttl") -> float:
        """Reads an idle time, in seconds.

        Args:
            ttl: the idle time asked for.
            violations: what is wrong is noted here.
            field: its path in the request.
        """
        ttl_s = times.seconds(ttl)
        if not MIN_TTL_S <= ttl_s <= self.max_ttl_s:
            bounds = f"[{MIN_TTL_S:g} s, {self.max_ttl_s:g} s]"
            violations.add(field, f"must be in {bounds}, with {times.NANOS}")
        return ttl_s

    def room(self, num_tokens: int, context_length: int) -> int:
        """Returns how many tokens a row gets that needs room for `num_tokens`."""
        return max(num_tokens, min(num_tokens + self.new_tokens, context_length))


@dataclass(frozen=True, slots=True)
class RowOrigin:
    """What a row was in a session that is gone.

    Attributes:
        num_prompt_tokens: leading tokens that are its prompt.
        seed: seed of its draws.
        num_pending: last tokens that have not passed through the model.
    """

    num_prompt_tokens: int
    seed: int
    num_pending: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A checked step.

    Attributes:
        command: what the engine gets.
        step_id: the step's name, or empty.
    """

    command: StepSession
    step_id: str


def read_step(
    request: logits_session_service_pb2.StepRequest,
    selection: ScoreSelection,
    *,
    num_rows: int,
    max_length: int,
    vocabulary_size: int,
    max_selected_tokens: int,
    without_rows: range = NONE,
    path: str = "",
) -> StepPlan:
    """Checks a step.

    Args:
        request: the step.
        selection: what is returned when the step does not say.
        num_rows: rows of the session.
        max_length: most tokens of a row.
        vocabulary_size: number of ids of the session's revision.
        max_selected_tokens: largest `top_k` and longest id list.
        without_rows: ids that the model has no rows for.
        path: of the step in the message, `""` or ending in a dot.

    Raises:
        InvalidField: one or more fields are wrong.
        ContextLengthExceeded: a row gets more tokens than it ever has room for.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    violations = Violations()
    if len(request.step_id) > MAX_STEP_ID_LENGTH:
        violations.add(f"{path}step_id", f"must have at most {MAX_STEP_ID_LENGTH} characters")
    if len(request.rows) != num_rows:
        violations.add(f"{path}rows", f"must have one entry per row, {num_rows}")
        violations.check()
    for index, row in enumerate(request.rows):
        if len(row.ids) > max_length:
            raise ContextLengthExceeded(
                row=index,
                prompt_tokens=0,
                new_tokens=len(row.ids),
                context_tokens=max_length,
                of_session=True,
            )
    rows = [
        StepRow(list(row.ids), row.expected_position if row.HasField("expected_position") else None)
        for row in request.rows
    ]
    if request.HasField("scores"):
        selection = read_selection(
            request.scores,
            f"{path}scores",
            violations,
            use="given",
            vocabulary_size=vocabulary_size,
            max_selected_tokens=max_selected_tokens,
            given_tokens=min((len(row.token_ids) for row in rows if row.token_ids), default=1),
        )
    violations.check()
    given = (row.token_ids for row in rows)
    check_token_ids(f"{path}rows", given, vocabulary_size, without_rows)
    command = StepSession(
        request.session_id,
        rows,
        selection,
        sample=request.HasField("sampling"),
        append=request.sampling.append,
        look_ahead=request.look_ahead,
    )
    return StepPlan(command, request.step_id)


def read_row_indices(
    indices: Sequence[int], violations: Violations, *, num_rows: int, max_rows: int
) -> list[int]:
    """Checks indices of rows, which may repeat.

    Args:
        indices: the field `row_indices`.
        violations: what is wrong is noted here.
        num_rows: rows of the session.
        max_rows: most indices.
    """
    if not 1 <= len(indices) <= max_rows:
        violations.add("row_indices", f"must name 1 to {max_rows} rows")
    for place, index in enumerate(indices):
        if not 0 <= index < num_rows:
            violations.add(f"row_indices[{place}]", f"must be in [0, {num_rows - 1}]")
    return list(indices)


def read_origins(
    origins: Sequence[logits_session_service_pb2.RowOrigin],
    rows: list[list[int]],
    violations: Violations,
) -> list[RowOrigin]:
    """Checks what rows were in a session that is gone.

    Args:
        origins: the field `origins`, empty for rows that begin.
        rows: the tokens of each row.
        violations: what is wrong is noted here.
    """
    if origins and len(origins) != len(rows):
        violations.add("origins", f"must have one entry per prompt, {len(rows)}")
        return []
    for index, (origin, row) in enumerate(zip(origins, rows, strict=False)):
        most_pending = max(0, len(row) - 1)
        if not 0 <= origin.pending_token_count <= most_pending:
            violations.add(
                f"origins[{index}].pending_token_count", f"must be in [0, {most_pending}]"
            )
        elif not 1 <= origin.prompt_token_count <= len(row) - origin.pending_token_count:
            violations.add(
                f"origins[{index}].prompt_token_count",
                f"must be in [1, {len(row) - origin.pending_token_count}]",
            )
        if origin.seed < 0:
            violations.add(f"origins[{index}].seed", "must be in [0, 2^63)")
    return [
        RowOrigin(origin.prompt_token_count, origin.seed, origin.pending_token_count)
        for origin in origins
    ]


def read_fork(
    request: logits_session_service_pb2.ForkRequest, *, num_rows: int, max_rows: int
) -> tuple[list[int], int]:
    """Checks a fork and returns the rows to copy and the number of copies.

    Args:
        request: the fork.
        num_rows: rows of the session.
        max_rows: most rows of all copies.

    Raises:
        InvalidField: one or more fields are wrong.
    """
    violations = Violations()
    indices = request.row_indices or range(num_rows)
    rows = read_row_indices(indices, violations, num_rows=num_rows, max_rows=max_rows)
    count = request.count or 1
    if not 1 <= count * len(rows) <= max(max_rows, len(rows)):
        violations.add(
            "count", f"must be in [1, {max(1, max_rows // len(rows))}] for {len(rows)} rows"
        )
    violations.check()
    return rows, count
