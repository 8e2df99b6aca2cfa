"""The highest-scored ids of some rows, and what is certain about them.

Warpers compare probabilities, and sums that Hugging Face computes in float32
have rounding errors that depend on the order of additions. So an id is not just
kept or removed here, but `certain` (kept whatever the rounding), `possible`, or
neither; and so are, as a whole, the ids beyond the candidates, the tail.

N: rows, K: candidates, W: width of a row.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from model_service.engine.sampling.score_rows import ScoreRows

# Twice the largest step of float32 relative to its value.
ULP = 2.0**-23


@dataclass(slots=True)
class Candidates:
    """K ids of each of N rows, and which of them the warpers so far keep.

    Attributes:
        rows: the rows they come from, each `[W]` float32.
        temperatures: divisor of each row.
        values: scores after temperature, `[N, K]` float32, descending; padded
            with `-inf`.
        ids: `[N, K]` int64.
        logs: `values` minus the highest of the row, `[N, K]` float64.
        certain: kept for sure, `[N, K]` bool.
        possible: not removed for sure, `[N, K]` bool.
        tail_certain: whether all ids beyond the candidates are kept for sure, `[N]` bool.
        tail_possible: whether any of them may be kept, `[N]` bool.
        tail_weight: sum of exp(score - highest) over them, `[N]` float64; infinite
            until it is measured.
        tail_moment: sum of exp(score - highest) * (score - highest) over them.
        undecided: rows that the candidates cannot decide, `[N]` bool.
    """

    rows: list[Tensor]
    temperatures: list[float]
    values: Tensor
    ids: Tensor
    logs: Tensor
    certain: Tensor
    possible: Tensor
    tail_certain: Tensor
    tail_possible: Tensor
    tail_weight: Tensor
    tail_moment: Tensor
    undecided: Tensor

    @classmethod
    def find(
        cls, scores: ScoreRows, rows: list[int], temperatures: list[float], count: int
    ) -> Self:
        """Takes the `count` highest of each row, before any warper but temperature.

        Args:
            scores: after the processors.
            rows: which of them.
            temperatures: by which to divide each row.
            count: candidates per row, K.
        """
        values, ids = scores.top(rows, count)
        whole = scores.matrix.unbind()  # at half the cost of picking each
        return cls.of([whole[row] for row in rows], temperatures, values, ids)

    @classmethod
    def of(
        cls,
        rows: list[Tensor],
        temperatures: list[float],
        values: Tensor,
        ids: Tensor,
        **more: Tensor,
    ) -> Self:
        """Takes what was found, before any warper but temperature.

        Args:
            rows: scores after the processors, each `[W]` float32.
            temperatures: by which to divide each row.
            values: the highest scores of each row, `[N, K]` float32, descending; changed.
            ids: whose they are, `[N, K]` int64.
            **more: what else a kind of candidates knows.
        """
        # As Hugging Face divides: float32 by float32. Order is kept, and ties can only grow.
        values /= torch.tensor(temperatures)[:, None]
        logs = values.double()
        logs = logs - logs[:, :1]
        finite = values > -torch.inf
        beyond = finite[:, -1] & (len(rows[0]) > values.shape[-1])
        nothing = torch.zeros(len(rows), dtype=torch.float64)
        return cls(
            rows=rows,
            temperatures=temperatures,
            values=values,
            ids=ids,
            logs=logs,
            certain=finite,
            possible=finite.clone(),
            tail_certain=beyond,
            tail_possible=beyond.clone(),
            tail_weight=torch.where(beyond, torch.inf, nothing),
            tail_moment=nothing,
            undecided=~values[:, 0].isfinite(),
            **more,
        )

    @property
    def weights(self) -> Tensor:
        """exp(score - highest), `[N, K]` float64."""
        return self.logs.exp()

    def measure(self, rows: Tensor, moments: bool) -> None:
        """Computes what is beyond the candidates of some rows, in one pass over each.

        Args:
            rows: which, `[N]` bool.
            moments: whether `tail_moment` is needed.
        """
        weights = self.weights
        inside = weights.sum(-1)
        inside_moment = (weights * self.logs).nan_to_num().sum(-1)
        scratch = torch.empty_like(self.rows[0])  # new memory for each row would cost more
        for index in rows.nonzero()[:, 0].tolist():
            logs = torch.div(self.rows[index], self.temperatures[index], out=scratch)
            logs -= self.values[index, 0].to(logs.device)
            row = logs.exp() if moments else logs.exp_()
            self.tail_weight[index] = (float(row.sum()) - inside[index]).clamp_min(0.0)
            if moments:
                moment = float((row * logs).nansum())  # -inf has weight 0
                self.tail_moment[index] = (moment - inside_moment[index]).clamp_max(0.0)

    def deviations(self, rows: Tensor) -> Tensor:
        """Returns the standard deviation of all scores that are not excluded, `[N]` float64.

        Args:
            rows: of which, `[N]` bool; 0 for the others.
        """
        deviations = torch.zeros(len(self.rows), dtype=torch.float64)
        for index in rows.nonzero()[:, 0].tolist():
            row = self.rows[index] / self.temperatures[index]
            deviations[index] = float(row[row.isfinite()].double().std(correction=0))
        return deviations

    def mass(self) -> tuple[Tensor, Tensor]:
        """Returns the least and the greatest sum of weights that is kept, `[N, 1]` float64."""
        weights = self.weights
        nothing = torch.zeros_like(self.tail_weight)
        least = (weights * self.certain).sum(-1)
        least += torch.where(self.tail_certain, self.tail_weight, nothing)
        greatest = (weights * self.possible).sum(-1)
        greatest += torch.where(self.tail_possible, self.tail_weight, nothing)
        return least[:, None], greatest[:, None]

    def rounding(self) -> Tensor:
        """Bounds the relative error of a sum of weights in float32, `[N, 1]` float64.

        At worst each addition rounds the same way; a vectorized sum has at least
        four lanes.
        """
        inside = torch.full((len(self.rows),), float(self.values.shape[-1]), dtype=torch.float64)
        whole = torch.full_like(inside, float(len(self.rows[0])))
        terms = torch.where(self.tail_possible, whole, inside)
        return (ULP * (terms / 8 + 64))[:, None]

    def restrict(self, on: Tensor, certain: Tensor, possible: Tensor, tail: Tensor) -> None:
        """Removes what a warper does.

        Args:
            on: rows that have the warper, `[N]` bool.
            certain: what it keeps for sure, `[N, K]` bool.
            possible: what it may keep, `[N, K]` bool.
            tail: whether it may keep anything of the tail, `[N]` bool.
        """
        off = ~on[:, None]
        self.certain = self.certain & (certain | off)
        self.possible = self.possible & (possible | off)
        self.tail_certain = self.tail_certain & ~on
        self.tail_possible = self.tail_possible & (tail | ~on)

    def restrict_to_prefix(self, on: Tensor, certain: Tensor, possible: Tensor) -> None:
        """Applies a warper that keeps a fixed number of ids and breaks ties in its own order.

        Args:
            on: rows that have the warper, `[N]` bool.
            certain: the first ids, all of which it keeps for sure except ties, `[N, K]` bool.
            possible: the first ids, after which it keeps nothing except ties, `[N, K]` bool.
        """
        edge = self.values.masked_fill(certain, -torch.inf).amax(-1)
        edge = torch.where(self.tail_possible, torch.maximum(edge, self.values[:, -1]), edge)
        lowest = self.values.masked_fill(~possible, torch.inf).amin(-1)
        possible = self.values >= lowest[:, None]
        self.restrict(on, certain & (self.values > edge[:, None]), possible, possible[:, -1])

    def restrict_to_highest(self, on: Tensor, counts: Tensor, above: Tensor, below: Tensor) -> None:
        """Removes ids below a bound unless they are among the highest, ties included.

        Args:
            on: rows that have the warper, `[N]` bool.
            counts: how many of the highest stay anyway, `[N, 1]` int64.
            above: ids that are above the bound for sure, `[N, K]` bool.
            below: ids that are below it for sure, `[N, K]` bool; the lowest candidate
                speaks for the tail.
        """
        least = self._last_of_first(self.certain, counts)
        most = self._last_of_first(self.possible, counts)
        possible = ~below | (self.values >= least)
        self.restrict(on, above | (self.values >= most), possible, possible[:, -1])

    def _last_of_first(self, mask: Tensor, counts: Tensor) -> Tensor:
        """Returns the lowest of the first `counts` values of a mask; -inf if it has fewer."""
        first = mask & (mask.cumsum(-1) <= counts)
        value = self.values.masked_fill(~first, torch.inf).amin(-1, keepdim=True)
        return value.masked_fill(mask.sum(-1, keepdim=True) < counts, -torch.inf)
