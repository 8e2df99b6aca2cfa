"""Beam search over one prompt: which continuations go on, which are finished, and when it ends.

Arithmetic only: the rows that run through the model are the business of
`beams.py`. Values are computed as Hugging Face's `_beam_search` does for one
prompt, in float32 and in its order, so that equal log-probabilities give equal
beams. It departs from it in one thing: a beam that is only there to fill the
batch (a copy of the prompt next to the first beam, or a finished one) is never
returned.

B: beams, C: candidates of a step, V: ids of the sequence's revision.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model_service.protocol.generation import FinishReason, PositionScores

EarlyStopping = bool | Literal["never"]

Draw = Callable[[Tensor, int], Tensor]
"""Draws a number of places among scores `[N]`, without replacement, by their softmax."""

# Added to the log-probability of what must not be chosen. As large as in Hugging Face, where
# what it is added to is lost in rounding, and ties are broken alike.
EXCLUDED = -1e9

# No sum of log-probabilities of real tokens gets here, and no excluded one stays above.
IMPOSSIBLE = EXCLUDED / 2

# Bounds of what sums are divided by, so that no score overflows.
MIN_DIVISOR, MAX_DIVISOR = 1e-30, 1e30


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A generated token and, through `before`, the tokens that led to it.

    Attributes:
        before: the path that the token was appended to, or None for the first token.
        beam: index of that path among the beams of its step.
        token_id: the token.
        scores: what was asked for about the distribution that it was chosen from.
    """

    before: "Path | None"
    beam: int
    token_id: int
    scores: PositionScores | None = None

    def steps(self) -> list["Path"]:
        """Returns the paths of all generated tokens, the first one first."""
        steps = []
        path: Path | None = self
        while path is not None:
            steps.append(path)
            path = path.before
        return steps[::-1]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished continuation.

    Attributes:
        path: its last token, the one that ends it.
        score: sum of log-probabilities over the length to the power of the penalty.
        reason: why it ended.
    """

    path: Path
    score: float
    reason: FinishReason


class BeamSearch:
    """The state of one search.

    Attributes:
        beams: the path of each beam, best first; None before the first token.
        finished: the best continuations that have ended, at most B, best first.
        done: whether the search has ended.
    """

    def __init__(
        self,
        *,
        num_beams: int,
        length_penalty: float,
        early_stopping: EarlyStopping,
        num_ends: int,
        max_new_tokens: int,
    ) -> None:
        """Starts at the end of the prompt.

        Args:
            num_beams: B.
            length_penalty: exponent of the length that sums are divided by.
            early_stopping: whether B finished continuations end the search; "never" ends it
                only when no better one is possible.
            num_ends: number of ids that end a continuation.
            max_new_tokens: length at which every continuation ends.
        """
        self.beams: list[Path | None] = [None] * num_beams
        self.finished: list[Hypothesis] = []
        self.done = False
        self._sums = torch.full((num_beams,), EXCLUDED)  # [B]
        self._sums[0] = 0.0  # all are the same: only one of them may go on
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        # So many that B of them go on even if every end is among the best.
        self._num_candidates = max(2, 1 + num_ends) * num_beams
        self._max_new_tokens = max_new_tokens
        self._num_new_tokens = 0

    def advance(
        self,
        log_probs: Tensor,
        *,
        end: Callable[[int, int], FinishReason | None],
        describe: Callable[[int, int], PositionScores | None] = lambda beam, token_id: None,
        draw: Draw | None = None,
    ) -> None:
        """Appends a token to the beams that go on.

        Args:
            log_probs: `[B, V]` float32 of the next token of each beam, processed.
            end: says why a beam would end with a token, or None.
            describe: says what to keep about the distribution of a beam's token.
            draw: draws candidates from the flattened `[B * V]` sums. None takes the best.
        """
        num_beams, size = log_probs.shape
        sums = (log_probs + self._sums[:, None]).flatten()  # [B * V]
        count = min(self._num_candidates, len(sums))
        if draw is None or float(sums.max()) == -torch.inf:
            sums, indices = sums.topk(count)  # [C]
        else:
            indices = draw(sums, count)
            sums = sums[indices]
        candidates = [divmod(index, size) for index in indices.tolist()]
        reasons = [end(beam, token_id) for beam, token_id in candidates]
        ends = torch.tensor([float(reason is not None) for reason in reasons])
        self._num_new_tokens += 1

        kept, order = (sums + ends * EXCLUDED).topk(num_beams)
        goes_on = order.tolist()
        paths = {
            index: Path(self.beams[beam], beam, token_id, describe(beam, token_id))
            for index, (beam, token_id) in enumerate(candidates)
            if index in goes_on or (index < num_beams and reasons[index] is not None)
        }
        scores = sums / self._divisor(self._num_new_tokens)
        for index, path in paths.items():
            reason = reasons[index]
            if index < num_beams and reason is not None and sums[index] > IMPOSSIBLE:
                self.finished.append(Hypothesis(path, float(scores[index]), reason))
        self.finished.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
        del self.finished[num_beams:]
        self.beams = [paths[index] for index in goes_on]
        self._sums = kept
        self.done = bool(ends.all()) or not self._may_improve()

    def _may_improve(self) -> bool:
        """Whether a beam may still come to be one of the best B."""
        best = float(self._sums[0])
        if len(self.finished) < len(self.beams):
            return best > IMPOSSIBLE
        if self._early_stopping is True:
            return False
        length = self._num_new_tokens
        if self._early_stopping == "never" and self._length_penalty > 0.0:
            length = self._max_new_tokens
        return float(self._sums[0] / self._divisor(length)) > self.finished[-1].score

    def _divisor(self, length: int) -> float:
        try:
            divisor = math.pow(length, self._length_penalty)
        except OverflowError:
            divisor = math.inf
        return min(max(divisor, MIN_DIVISOR), MAX_DIVISOR)
