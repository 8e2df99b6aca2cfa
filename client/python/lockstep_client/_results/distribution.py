"""The next-token distribution after a prompt, before and after every processor."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, Self

import numpy as np
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import scores_pb2 as scores_pb

from lockstep_client._values import html
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef

MODEL_STAGE: Final = "model"
EXCLUSION_STAGE: Final = "not generable"
"""Where ids that must not be generated are left out and no processor is applied."""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """What may come next after a prompt, before and after every processor.

    K is the number of tokens that are shown, S the number of stages. To be read, `print` it;
    to be plotted, `probabilities` has a row of bars for each of `stages`, named by `texts`.

    Attributes:
        token_ids: `[K]` the tokens: the most probable ones of the model, then those that the
            processors bring up.
        stages: `[S]` `model`, then the name of each processor in the order in which they are
            applied.
        scores: `[S, K]` float32, raw logits at first, then the scores after each processor;
            `-inf` where a token is excluded.
        logsumexp: `[S]` float64, over the whole vocabulary.
        position: number of tokens before.
        vocabulary: the vocabulary that was used.
        texts: `[K]` what each token stands for, with every character visible; empty where only
            ids are known.
    """

    token_ids: list[int]
    stages: list[str]
    scores: Array = field(repr=False)
    logsumexp: Array = field(repr=False)
    position: int
    vocabulary: VocabularyRef = field(repr=False)
    texts: list[str] = field(default_factory=list)

    __repr__ = one_line

    @property
    def probabilities(self) -> Array:
        """`[S, K]` float64, by softmax over the whole vocabulary; 0 where a token is excluded."""
        with np.errstate(invalid="ignore"):  # -inf of a stage that leaves no token
            logprobs = self.scores.astype(np.float64) - self.logsumexp[:, None]
        return np.exp(np.nan_to_num(logprobs, nan=-np.inf, neginf=-np.inf))

    def __str__(self) -> str:
        """Returns a table, with a column for each stage."""
        rows = [["token"] * bool(self.texts) + ["id", *self.stages]]
        for cells, shares in self._rows():
            rows.append(cells + [f"{share:.1%}" if share else "-" for share in shares])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            cells[0] = row[0].ljust(widths[0])
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Shows the tokens with a bar for each stage."""
        head = ["token"] * bool(self.texts) + ["id", *self.stages]
        rows = [[*cells, *map(html.bar, shares)] for cells, shares in self._rows()]
        facts: dict[str, html.Cell] = {"position": self.position}
        return html.stacked([html.facts(facts), html.table(head, rows, max_rows=len(rows))])

    def with_texts(self, texts: Sequence[str]) -> Self:
        """Returns the same with what the tokens stand for, `[K]`."""
        return replace(self, texts=list(texts))

    def _rows(self) -> list[tuple[list[str], list[float]]]:
        """Returns the cells that name a row, and its probability at each stage."""
        probabilities = self.probabilities
        names = [[str(token_id)] for token_id in self.token_ids]
        if self.texts:
            names = [[text, *name] for text, name in zip(self.texts, names, strict=True)]
        rows = list(zip(names, probabilities.T.tolist(), strict=True))
        # What rounding leaves of nothing is nothing.
        rest = 1 - probabilities.sum(1)
        others = np.where(rest < 1e-9, 0.0, rest).tolist()
        return [*rows, (["others"] + [""] * bool(self.texts), others)]


def distributions(response: model_pb.ComputeLogitsResponse) -> list[Distribution]:
    """Reads one distribution for each prompt."""
    vocabulary = VocabularyRef.from_message(response.vocabulary)
    rows = chain.from_iterable(row.scores for row in response.rows)
    return [_distribution(position, vocabulary) for position in rows]


def _distribution(message: scores_pb.PositionScores, vocabulary: VocabularyRef) -> Distribution:
    """Reads a position whose trace has the scores of the tokens that are shown."""
    logits = [token.logit for token in message.tokens]
    stages, scores, logsumexp = [MODEL_STAGE], [logits], [message.logits_logsumexp]
    for entry in message.processor_trace:
        stages.append(entry.processor)
        scores.append(list(entry.token_scores))
        logsumexp.append(entry.logsumexp)
    if len(stages) == 1 and message.scores_logsumexp != message.logits_logsumexp:
        stages.append(EXCLUSION_STAGE)
        scores.append([token.score for token in message.tokens])
        logsumexp.append(message.scores_logsumexp)
    return Distribution(
        token_ids=[token.token_id for token in message.tokens],
        stages=stages,
        scores=np.array(scores, dtype=np.float32),
        logsumexp=np.array(logsumexp, dtype=np.float64),
        position=message.position,
        vocabulary=vocabulary,
    )
