"""What a client knows about a session between its calls. Pure: no I/O.

B is the number of rows, V the size of the vocabulary.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._calls.session_rows import SessionRows
from lockstep_client._requests import generation_config
from lockstep_client._requests import model as model_requests
from lockstep_client._requests import session as requests
from lockstep_client._requests.options import GenerateOptions, StepOptions
from lockstep_client._results.determinism import Determinism
from lockstep_client._results.generation import Generation, finish_reason
from lockstep_client._results.scores import (
    PositionScores,
    ReadRow,
    inline_row,
    last_rows,
    positions,
)
from lockstep_client._transport import status
from lockstep_client._values import durations, vocabulary_ref
from lockstep_client._values.messages import build
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import (
    ConnectionFailed,
    Draining,
    EngineLost,
    ServiceError,
    SessionBusy,
    SessionNotFound,
    SessionOnOtherReplica,
)

BUSY_LIMIT_S: Final = 5.0
"""How long a call that was left is waited for."""
BUSY_PAUSE_S: Final = 0.1

LOSSES: Final = (ConnectionFailed, Draining, EngineLost, SessionNotFound, SessionOnOtherReplica)
"""What calls of a session fail with where the session may be lost, and goes on only elsewhere."""
FAREWELL_S: Final = 0.5
"""How long closing a session may take that was opened again elsewhere."""
REOPENING_PAUSES_S: Final = (0.2, 0.4, 0.8)
"""A session is opened again for one call as often, and where the connection had failed, the call
waits as long."""


class Turn:
    """Waits for the turn of a call while another one, that was left, uses its session."""

    def __init__(self, timeout_s: float | None) -> None:
        """Begins to wait, at most for `BUSY_LIMIT_S`.

        Args:
            timeout_s: of the waiting and the call together; None means no limit.
        """
        now = time.monotonic()
        self._deadline = None if timeout_s is None else now + timeout_s
        self._patient_until = now + min(BUSY_LIMIT_S, timeout_s or BUSY_LIMIT_S)

    @property
    def timeout_s(self) -> float | None:
        """Time left, for the next call."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def pause_s(self, error: SessionBusy) -> float:
        """Returns the time to wait before asking again.

        Raises:
            SessionBusy: the error, once no time is left.
        """
        pause_s = error.retry_delay_s or BUSY_PAUSE_S
        if time.monotonic() + pause_s > self._patient_until:
            raise error
        return pause_s


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """The outcome of one step.

    Attributes:
        rows: what was asked for about each row, by position.
        sampled_token_ids: what the server chose for each row; None where it was
            not asked to.
        finish_reasons: why each row would end with the chosen token, for example
            `eos_token`; None while it goes on.
        replayed: whether this is a repeated answer.
        recomputed: whether the KV cache had been dropped and was computed again.
        seeds: seed of each row's draws; None where the server was not asked to choose.
        determinism: how far the result can be reproduced.
        drain_s: how long the service still takes steps, in seconds, as it shuts down; None
            unless it does.
    """

    rows: tuple[tuple[PositionScores, ...], ...]
    sampled_token_ids: tuple[int | None, ...]
    finish_reasons: tuple[str | None, ...]
    replayed: bool
    recomputed: bool
    seeds: tuple[int | None, ...]
    determinism: Determinism
    drain_s: float | None = None

    __repr__ = one_line


class SessionState:
    """The state of a session as of the last answer.

    Attributes:
        session_id: its name.
        vocabulary: the vocabulary it is on.
        effective_config: processors and warpers that it uses, every field resolved.
        position: number of tokens in each row.
        rows: what was last asked for about each row, by position.
        seeds: seed of each row's draws.
        determinism: how far results can be reproduced.
        sampled_token_ids: what the server chose for each row when it was opened; None
            where it was not asked to.
        finish_reasons: why each row would end with that; None while it goes on.
        closed: whether it was closed by this client.
    """

    def __init__(
        self, request: session_pb.OpenSessionRequest, response: session_pb.OpenSessionResponse
    ) -> None:
        self._known = SessionRows.of_answer(request, response)
        self.session_id = response.session_id
        self.vocabulary = VocabularyRef.from_message(response.vocabulary)
        self.effective_config: dict[str, Any] = generation_config.to_dict(response.effective_config)
        self.position = tuple(row.position for row in response.rows)
        self.rows: tuple[tuple[PositionScores, ...], ...] = tuple(
            positions(row.scores) for row in response.scores
        ) or tuple(() for _ in response.rows)
        self.seeds = tuple(row.seed for row in response.rows)
        self.determinism = Determinism.from_message(response.determinism)
        self.sampled_token_ids = _sampled(response.rows)
        self.finish_reasons = _reasons(response.rows)
        self.closed = False
        self._unsettled = False  # a call was left: the server may still be at it
        self._overrun = False  # it was a generation: the server may have kept tokens of it
        self._drain_s: float | None = None  # how long its replica still takes steps, if it says so

    @property
    def logits(self) -> Array | None:
        """`[B, V]` raw logits of the next token, float16 or float32; None without full rows."""
        return last_rows([row[-1].logits if row else None for row in self.rows])

    @property
    def scores(self) -> Array | None:
        """`[B, V]` processed scores, typed as the logits; None without full rows."""
        return last_rows([row[-1].scores if row else None for row in self.rows])

    def _check_open(self) -> None:
        """Refuses to use a session that this client has closed.

        Raises:
            SessionNotFound: it has.
        """
        if self.closed:
            raise SessionNotFound(
                "The session was closed by this client; open a new one.",
                code=grpc.StatusCode.NOT_FOUND,
            )

    @contextmanager
    def _leaving(self, *, overrun: bool = False) -> Iterator[None]:
        """Notes it when a call inside is left before the service has answered.

        Args:
            overrun: whether the call generates.
        """
        try:
            yield
        except ServiceError:
            raise
        except BaseException:  # the caller leaves, or time is up, or the line broke
            self._unsettled = True
            self._overrun |= overrun
            raise

    def _undo_request(self) -> session_pb.TruncateRequest:
        """Builds the request that forgets what a generation that was left may have added."""
        return self._truncate_request(self.position)

    def _settled(self) -> None:
        """Takes that the session is free, and as it was before a generation that was left."""
        self._unsettled = self._overrun = False

    def _step_request(
        self, rows: Sequence[Any] | Array, options: StepOptions
    ) -> session_pb.StepRequest:
        """Builds the request of the next step; an array is `[B]` or `[B, T]`, any integer type."""
        return requests.step(self.session_id, rows, self.position, options)

    def _apply_step(
        self,
        request: session_pb.StepRequest,
        response: session_pb.StepResponse,
        read_row: ReadRow = inline_row,
    ) -> StepResult:
        """Takes the answer of a step.

        Args:
            request: the step.
            response: the answer.
            read_row: finds the values of full rows.

        Raises:
            LockstepError: a row failed. The state has the rows that did not.
        """
        self.position = tuple(row.position for row in response.rows)
        result = StepResult(
            rows=tuple(positions(row.scores, read_row) for row in response.rows),
            sampled_token_ids=_sampled(response.rows),
            finish_reasons=_reasons(response.rows),
            replayed=response.replayed,
            recomputed=response.recomputed,
            seeds=tuple(row.seed if row.HasField("seed") else None for row in response.rows),
            determinism=Determinism.from_message(response.determinism),
            drain_s=_drain_s(response),
        )
        self._drain_s = result.drain_s
        if not request.look_ahead:
            self._known.step(request, response)
            # Rows that did not step keep what is known about them.
            self.rows = tuple(new or old for new, old in zip(result.rows, self.rows, strict=True))
        for row in response.rows:
            if row.HasField("error"):
                raise status.from_item_error(row.error)
        return result

    def _generate_request(self, options: GenerateOptions) -> model_pb.GenerateRequest:
        """Builds the request that generates from where the rows are."""
        return model_requests.continue_session(self.session_id, self.vocabulary, options)

    def _apply_generation(self, generation: Generation) -> None:
        """Takes what was generated: what follows it is not known."""
        self._known.generate([sequence.token_ids for sequence in generation.details])
        self.position = tuple(
            position + len(sequence.token_ids)
            for position, sequence in zip(self.position, generation.details, strict=True)
        )
        self.rows = tuple(() for _ in self.position)

    def _truncate_request(self, positions: int | Sequence[int]) -> session_pb.TruncateRequest:
        """Builds the request that cuts all rows at one position, or each at its own."""
        each = [positions] * len(self.position) if isinstance(positions, int) else positions
        return build(session_pb.TruncateRequest, session_id=self.session_id, positions=each)

    def _apply_rows(self, rows: Sequence[session_pb.SessionRow]) -> None:
        """Takes the rows after they were cut: what follows them is not known."""
        self.position = tuple(row.position for row in rows)
        self._known.cut(self.position)
        self.rows = tuple(() for _ in rows)

    def _apply_selection(
        self, response: session_pb.SelectRowsResponse, row_indices: Sequence[int]
    ) -> None:
        """Takes the rows after they were selected."""
        self._known = self._known.copy(row_indices)
        self.position = tuple(row.position for row in response.rows)
        self.seeds = tuple(row.seed for row in response.rows)
        self.rows = tuple(self.rows[index] for index in row_indices)

    def _rebind_request(self, vocabulary: VocabularyRef | None) -> session_pb.RebindSessionRequest:
        """Builds the request that moves the session to a newer revision."""
        return session_pb.RebindSessionRequest(
            session_id=self.session_id, vocabulary=vocabulary_ref.message(vocabulary)
        )

    def _apply_rebind(self, response: session_pb.RebindSessionResponse) -> VocabularyRef:
        """Takes the new revision: what was known about the next token was of the old one."""
        self.vocabulary = VocabularyRef.from_message(response.vocabulary)
        self._apply_rows(response.rows)
        return self.vocabulary

    def _reopen_request(self) -> session_pb.OpenSessionRequest:
        """Builds the request for a session that goes on as this one would have.

        Raises:
            SessionNotFound: a row has no token to begin with.
        """
        if not all(self.position):
            raise SessionNotFound(
                "A row without tokens cannot be opened again; open a new session.",
                code=grpc.StatusCode.NOT_FOUND,
            )
        request = self._known.reopening()
        request.vocabulary.CopyFrom(self.vocabulary.to_message())
        return request

    def _apply_reopening(self, response: session_pb.OpenSessionResponse) -> None:
        """Takes the name of the session that goes on; all that was known holds for it, too."""
        self.session_id = response.session_id
        self._drain_s = None
        self._settled()

    @staticmethod
    def _found(
        session_id: str, response: session_pb.GetSessionResponse
    ) -> session_pb.OpenSessionResponse:
        """Returns what the server has of a session as if it had just been opened."""
        return session_pb.OpenSessionResponse(
            session_id=session_id,
            max_length=response.max_length,
            rows=response.rows,
            vocabulary=response.vocabulary,
            effective_config=response.effective_config,
            determinism=response.determinism,
        )

    def _copy(self, session_id: str, row_indices: Sequence[int]) -> Self:
        """Returns the state of a fork: this one's, under another name."""
        fork = copy.copy(self)
        fork.session_id = session_id
        fork._known = self._known.copy(row_indices)
        fork.closed = fork._unsettled = fork._overrun = False
        if row_indices:
            fork.position = tuple(self.position[index] for index in row_indices)
            fork.seeds = tuple(self.seeds[index] for index in row_indices)
            fork.rows = tuple(self.rows[index] for index in row_indices)
        return fork


def _drain_s(response: session_pb.StepResponse) -> float | None:
    drains = response.HasField("drain_time_left")
    return durations.seconds(response.drain_time_left) if drains else None


def _sampled(
    rows: Sequence[session_pb.SessionRow] | Sequence[session_pb.StepRowResult],
) -> tuple[int | None, ...]:
    return tuple(row.sampled_token_id if row.HasField("sampled_token_id") else None for row in rows)


def _reasons(
    rows: Sequence[session_pb.SessionRow] | Sequence[session_pb.StepRowResult],
) -> tuple[str | None, ...]:
    return tuple(finish_reason(row.finish_reason) if row.finish_reason else None for row in rows)
