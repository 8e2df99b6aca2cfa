"""The tokens of a session's rows, from which it can be opened again. Pure: no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._values import batch as batches


@dataclass(slots=True)
class SessionRow:
    """One row as of the last answer.

    Attributes:
        token_ids: its tokens.
        num_prompt_tokens: leading tokens that are its prompt.
        num_pending: last tokens that have not passed through the model.
        seed: of its draws.
    """

    token_ids: list[int]
    num_prompt_tokens: int
    num_pending: int
    seed: int

    def copy(self) -> "SessionRow":
        """Returns the same row, which goes on by itself."""
        return SessionRow(list(self.token_ids), self.num_prompt_tokens, self.num_pending, self.seed)

    def cut(self, position: int) -> None:
        """Forgets tokens from a position on."""
        self.num_pending = max(0, self.num_pending - max(0, len(self.token_ids) - position))
        del self.token_ids[position:]
        self.num_prompt_tokens = min(self.num_prompt_tokens, position)


@dataclass(slots=True)
class SessionRows:
    """All rows of a session, and what it was opened with beside them.

    Attributes:
        opening: the request that opened it, without its prompts, or what is known of one.
        rows: its rows.
    """

    opening: session_pb.OpenSessionRequest
    rows: list[SessionRow] = field(default_factory=list)

    @classmethod
    def of_answer(
        cls, request: session_pb.OpenSessionRequest, response: session_pb.OpenSessionResponse
    ) -> "SessionRows":
        """Returns the rows of a session that was just opened or found.

        Args:
            request: what it was opened with; for one that was found, what a request would need.
            response: its state, with the tokens of rows that were not in the request.
        """
        opening = session_pb.OpenSessionRequest(
            max_length=response.max_length or None,
            cache_salt=request.cache_salt,
            generation_config=response.effective_config,
        )
        opening.generation_config.lenient = True  # fields that have no effect are among them
        if request.HasField("ttl"):
            opening.ttl.CopyFrom(request.ttl)
        if request.HasField("scores"):
            opening.scores.CopyFrom(request.scores)
        prompts = batches.rows_of(request.prompt) or [row.tokens.ids for row in response.rows]
        opened = cls(opening)
        for prompt, row in zip(prompts, response.rows, strict=True):
            was_appended = row.position - len(prompt)
            opened.rows.append(
                SessionRow(
                    [*prompt, row.sampled_token_id][: row.position],
                    row.prompt_token_count or len(prompt),
                    row.pending_token_count or was_appended,
                    row.seed,
                )
            )
        return opened

    def copy(self, row_indices: Sequence[int] = ()) -> "SessionRows":
        """Returns copies of these rows, or of some of them, for a session of its own."""
        opening = session_pb.OpenSessionRequest()
        opening.CopyFrom(self.opening)
        chosen = row_indices or range(len(self.rows))
        return SessionRows(opening, [self.rows[index].copy() for index in chosen])

    def step(self, request: session_pb.StepRequest, response: session_pb.StepResponse) -> None:
        """Takes what a step that was not only looked ahead at has appended."""
        if request.HasField("scores"):
            self.opening.scores.CopyFrom(request.scores)
        for row, given, outcome in zip(self.rows, request.rows, response.rows, strict=True):
            was_appended = outcome.position - len(row.token_ids) - len(given.ids)
            row.token_ids += [*given.ids, outcome.sampled_token_id]
            del row.token_ids[outcome.position :]
            row.num_pending = max(0, was_appended)

    def generate(self, sequences: Sequence[Sequence[int]]) -> None:
        """Takes what was generated for each row."""
        for row, token_ids in zip(self.rows, sequences, strict=True):
            row.token_ids += token_ids
            row.num_pending = 1 if token_ids else row.num_pending

    def cut(self, positions: Sequence[int]) -> None:
        """Forgets the tokens of each row from a position on."""
        for row, position in zip(self.rows, positions, strict=True):
            row.cut(position)

    def reopening(self) -> session_pb.OpenSessionRequest:
        """Builds the request for a session that goes on as this one would have."""
        request = session_pb.OpenSessionRequest()
        request.CopyFrom(self.opening)
        for row in self.rows:
            request.prompt.token_batch.sequences.append(tokens_pb.TokenSequence(ids=row.token_ids))
            request.origins.add(
                prompt_token_count=row.num_prompt_tokens,
                pending_token_count=row.num_pending,
                seed=row.seed,
            )
        return request
