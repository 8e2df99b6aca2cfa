"""What is known about the distribution at one position.

The distribution at index t is the one from which token t was drawn. V is the
size of the vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import scores_pb2 as scores_pb

from lockstep_client._results.determinism import Determinism
from lockstep_client._values import html, tensors
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef

SHOWN_TOKENS: Final = 12
"""Most tokens of a distribution that a notebook shows."""

ReadRow = Callable[[scores_pb.ScoreRow], Array]


def inline_row(row: scores_pb.ScoreRow) -> Array:
    """Reads a row in the message itself, as outside of streams: `[V]`; bfloat16 as float32."""
    return tensors.from_message(row.tensor)


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One id of a distribution.

    Attributes:
        token_id: the id.
        logit: its raw logit, None unless asked for.
        score: its processed score, `-inf` where excluded; None unless asked for.
    """

    token_id: int
    logit: float | None
    score: float | None


@dataclass(frozen=True, slots=True, eq=False)
class PositionScores:
    """What was asked for about one position; None for what was not.

    Attributes:
        position: number of tokens before the one that the distribution predicts.
        token_id: the token that was drawn or given there.
        logits: `[V]` raw logits.
        scores: `[V]` processed scores.
        tokens: ids asked for, by rank or in the order of the request.
        logits_logsumexp: log-sum-exp of the raw logits.
        scores_logsumexp: log-sum-exp of the processed scores.
        entropy: of softmax(logits), in nats.
        rank: of `token_id` by raw logit; 1 is the most probable.
        logits_logprob: log softmax(logits)[token_id].
        scores_logprob: log softmax(scores)[token_id].
        processor_trace: score of `token_id` after each processor, by its name.
    """

    position: int
    token_id: int | None = None
    logits: Array | None = None
    scores: Array | None = None
    tokens: tuple[TokenScore, ...] = ()
    logits_logsumexp: float | None = None
    scores_logsumexp: float | None = None
    entropy: float | None = None
    rank: int | None = None
    logits_logprob: float | None = None
    scores_logprob: float | None = None
    processor_trace: tuple[tuple[str, float], ...] = ()

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """Shows the most probable tokens with bars: of the logits, and of the scores."""
        rows: list[tuple[html.Cell, ...]] = []
        for token in self._best():
            raw = _probability(token.logit, self.logits_logsumexp, self.logits)
            processed = _probability(token.score, self.scores_logsumexp, self.scores)
            rows.append((token.token_id, token.logit, html.bar(raw), html.bar(processed)))
        head = ("id", "logit", "model", "after processors")
        where: dict[str, html.Cell] = {"position": self.position, "entropy": self.entropy}
        if self.token_id is not None:
            where |= {"token": self.token_id, "rank": self.rank, "log p": self.logits_logprob}
        given = {name: value for name, value in where.items() if value is not None}
        return html.stacked([html.facts(given), html.table(head, rows)])

    def _best(self) -> Sequence[TokenScore]:
        """Returns the tokens asked for, or else the best of full rows."""
        row = self.logits if self.logits is not None else self.scores
        if self.tokens or row is None:
            return self.tokens[:SHOWN_TOKENS]
        order = np.argsort(-row, kind="stable")[:SHOWN_TOKENS]
        return [
            TokenScore(
                token_id=int(token_id),
                logit=None if self.logits is None else float(self.logits[token_id]),
                score=None if self.scores is None else float(self.scores[token_id]),
            )
            for token_id in order
        ]

    @classmethod
    def from_message(
        cls, message: scores_pb.PositionScores, read_row: ReadRow = inline_row
    ) -> Self:
        """Reads the wire form; `read_row` finds the values of full rows."""
        return cls(
            position=message.position,
            logits=read_row(message.logits) if message.HasField("logits") else None,
            scores=read_row(message.scores) if message.HasField("scores") else None,
            tokens=tuple(_token_score(token) for token in message.tokens),
            processor_trace=_trace(message) if message.HasField("token_id") else (),
            **{
                name: getattr(message, name) if message.HasField(name) else None
                for name in _OPTIONAL_SCALARS
            },
        )


def _trace(message: scores_pb.PositionScores) -> tuple[tuple[str, float], ...]:
    return tuple((entry.processor, entry.score) for entry in message.processor_trace)


def _probability(value: float | None, logsumexp: float | None, row: Array | None) -> float | None:
    """Softmax of one value, from the log-sum-exp or the `[V]` row of float32; None without."""
    if logsumexp is None and row is not None:
        logsumexp = float(np.logaddexp.reduce(row.astype(np.float64)))
    if value is None or logsumexp is None:
        return None
    return float(np.exp(value - logsumexp))


_OPTIONAL_SCALARS = (
    "token_id",
    "logits_logsumexp",
    "scores_logsumexp",
    "entropy",
    "rank",
    "logits_logprob",
    "scores_logprob",
)


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """The probabilities of given tokens.

    Attributes:
        scores: one per token scored.
        logits_logprob: sum of the log-probabilities under the raw logits.
        greedy: whether every token is the most probable one at its place.
    """

    scores: tuple[PositionScores, ...]
    logits_logprob: float
    greedy: bool

    __repr__ = one_line

    @property
    def perplexity(self) -> float:
        """Exp of the mean negative log-probability of the tokens scored."""
        return math.exp(-self.logits_logprob / len(self.scores))


@dataclass(frozen=True, slots=True)
class NextTokenScores:
    """Next-token distributions of prompts.

    Attributes:
        rows: what was asked for, by prompt and position.
        vocabulary: the vocabulary that was used.
        determinism: how far the result can be reproduced.
    """

    rows: tuple[tuple[PositionScores, ...], ...]
    vocabulary: VocabularyRef
    determinism: Determinism

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """Shows the distribution after each prompt."""
        return html.stacked(row[-1]._repr_html_() for row in self.rows if row)

    @property
    def logits(self) -> Array | None:
        """`[B, V]` raw logits after each prompt, float16 or float32; None without full rows."""
        return last_rows([row[-1].logits if row else None for row in self.rows])

    @property
    def scores(self) -> Array | None:
        """`[B, V]` processed scores after each prompt, typed as logits; None if not asked for."""
        return last_rows([row[-1].scores if row else None for row in self.rows])


def last_rows(rows: Sequence[Array | None]) -> Array | None:
    """Stacks one `[V]` row per sequence to `[B, V]` of their type; None when one is missing."""
    present = [row for row in rows if row is not None]
    return np.stack(present) if present and len(present) == len(rows) else None


def positions(
    messages: Sequence[scores_pb.PositionScores], read_row: ReadRow = inline_row
) -> tuple[PositionScores, ...]:
    """Reads a list of the wire."""
    return tuple(PositionScores.from_message(message, read_row) for message in messages)


def scored_sequences(response: model_pb.ScoreResponse) -> list[ScoredSequence]:
    """Reads the answer of `Score`."""
    return [
        ScoredSequence(positions(row.scores), row.logits_logprob, row.greedy)
        for row in response.sequences
    ]


def next_token_scores(response: model_pb.ComputeLogitsResponse) -> NextTokenScores:
    """Reads the answer of `ComputeLogits`."""
    return NextTokenScores(
        rows=tuple(positions(row.scores) for row in response.rows),
        vocabulary=VocabularyRef.from_message(response.vocabulary),
        determinism=Determinism.from_message(response.determinism),
    )


def _token_score(message: scores_pb.TokenScore) -> TokenScore:
    return TokenScore(
        token_id=message.token_id,
        logit=message.logit if message.HasField("logit") else None,
        score=message.score if message.HasField("score") else None,
    )
