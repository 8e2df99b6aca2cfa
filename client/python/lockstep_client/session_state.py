"""What a client knows about a session between its calls. Pure: calls nobody.

B is the number of rows, V the size of the vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from lockstep.v1 import logits_session_service_pb2 as session_pb

from lockstep_client import exceptions, generation_config
from lockstep_client.requests import session as requests
from lockstep_client.results.generation import finish_reason
from lockstep_client.results.scores import PositionScores, last_rows, positions
from lockstep_client.tensors import Array
from lockstep_client.vocabulary_ref import VocabularyRef

BUSY_LIMIT_S: Final = 5.0
BUSY_PAUSE_S: Final = 0.1


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
    """

    rows: tuple[tuple[PositionScores, ...], ...]
    sampled_token_ids: tuple[int | None, ...]
    finish_reasons: tuple[str | None, ...]
    replayed: bool
    recomputed: bool


class SessionState:
    """The state of a session as of the last answer.

    Attributes:
        session_id: its name.
        vocabulary: the vocabulary it is on.
        effective_config: processors and warpers that it uses, every field resolved.
        position: number of tokens in each row.
        rows: what was last asked for about each row, by position.
        seeds: seed of each row's draws.
        closed: whether it was closed by this client.
    """

    def __init__(self, response: session_pb.OpenSessionResponse) -> None:
        self.session_id = response.session_id
        self.vocabulary = VocabularyRef.from_message(response.vocabulary)
        self.effective_config: dict[str, Any] = generation_config.to_dict(response.effective_config)
        self.position = tuple(row.position for row in response.rows)
        self.rows: tuple[tuple[PositionScores, ...], ...] = tuple(
            positions(row.scores) for row in response.scores
        )
        self.seeds = tuple(row.seed for row in response.rows)
        self.closed = False

    @property
    def logits(self) -> Array | None:
        """`[B, V]` raw logits of the next token; None where full rows are not known."""
        return last_rows([row[-1].logits if row else None for row in self.rows])

    @property
    def scores(self) -> Array | None:
        """`[B, V]` processed scores of the next token; None where full rows are not known."""
        return last_rows([row[-1].scores if row else None for row in self.rows])

    def step_request(
        self, rows: Sequence[Any] | Array, options: requests.StepOptions
    ) -> session_pb.StepRequest:
        """Builds the request of the next step."""
        return requests.step(self.session_id, rows, self.position, options)

    def apply_step(
        self, response: session_pb.StepResponse, *, look_ahead: bool = False
    ) -> StepResult:
        """Takes the answer of a step.

        Raises:
            LockstepError: a row failed. The state has the rows that did not.
        """
        self.position = tuple(row.position for row in response.rows)
        result = StepResult(
            rows=tuple(positions(row.scores) for row in response.rows),
            sampled_token_ids=tuple(
                row.sampled_token_id if row.HasField("sampled_token_id") else None
                for row in response.rows
            ),
            finish_reasons=tuple(
                finish_reason(row.finish_reason) if row.finish_reason else None
                for row in response.rows
            ),
            replayed=response.replayed,
            recomputed=response.recomputed,
        )
        if not look_ahead:  # rows that did not step keep what is known about them
            self.rows = tuple(new or old for new, old in zip(result.rows, self.rows, strict=True))
        for row in response.rows:
            if row.HasField("error"):
                raise exceptions.from_item_error(row.error)
        return result

    def truncate_request(self, positions: int | Sequence[int]) -> session_pb.TruncateRequest:
        """Builds the request that cuts all rows at one position, or each at its own."""
        each = [positions] * len(self.position) if isinstance(positions, int) else positions
        return session_pb.TruncateRequest(session_id=self.session_id, positions=each)

    def apply_rows(self, rows: Sequence[session_pb.SessionRow]) -> None:
        """Takes the rows after they were cut: what follows them is not known."""
        self.position = tuple(row.position for row in rows)
        self.rows = tuple(() for _ in rows)

    def apply_selection(
        self, response: session_pb.SelectRowsResponse, row_indices: Sequence[int]
    ) -> None:
        """Takes the rows after they were selected."""
        self.position = tuple(row.position for row in response.rows)
        self.seeds = tuple(row.seed for row in response.rows)
        self.rows = tuple(self.rows[index] for index in row_indices)

    def copy(self, session_id: str, row_indices: Sequence[int]) -> Self:
        """Returns the state of a fork: this one's, under another name."""
        fork = copy.copy(self)
        fork.session_id = session_id
        fork.closed = False
        if row_indices:
            fork.position = tuple(self.position[index] for index in row_indices)
            fork.seeds = tuple(self.seeds[index] for index in row_indices)
            fork.rows = tuple(self.rows[index] for index in row_indices)
        return fork
