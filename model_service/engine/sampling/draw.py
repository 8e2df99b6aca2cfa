"""Draws tokens: noise is added to scores, and the highest sums win.

N: rows, K: candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_service.engine.sampling import random
from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.choosing import Draw

# Distance of two sums above which log-softmax in float32 cannot swap them.
NORMALIZED_GAP = 1e-4


def noise(draws: list[Draw], token_ids: Tensor) -> Tensor:
    """Returns the noise of each draw, `[N, K]` float64, ids on the CPU."""
    return random.gumbel(keys(draws), token_ids)


def keys(draws: list[Draw]) -> Tensor:
    """Returns the key of each draw, `[N]` int64."""
    return random.keys(
        [draw.choosing.seed for draw in draws], [len(draw.token_ids) for draw in draws]
    )


def without_replacement(scores: Tensor, count: int, key: Tensor) -> Tensor:
    """Draws places among scores, by their softmax.

    The largest sums of score and Gumbel noise are such a sample (Kool, van Hoof
    and Welling, "Stochastic Beams and Where to Find Them", 2019).

    Args:
        scores: `[N]` float32.
        count: how many, at most N. Where fewer are possible, others follow them.
        key: of the draw, `[1]` int64.

    Returns:
        `[count]` int64, in the order of the draws.
    """
    possible = (scores > -torch.inf).nonzero()[:, 0]
    sums = torch.full_like(scores, -torch.inf, dtype=torch.float64)
    sums[possible] = scores[possible].double() + random.gumbel(key, possible[None])[0]
    return sums.topk(count).indices


@dataclass(frozen=True, slots=True)
class Rivals:
    """Ids beyond the candidates of a row whose noise is loud enough to beat the drawn one.

    Attributes:
        ids: `[M]` int64.
        bound: what their sums have to exceed.
        key: of the draw, `[1]` int64.
        temperature: of the row.
        win: whether the highest of them is then the token. If not, the candidates do not tell.
    """

    ids: Tensor
    bound: float
    key: Tensor
    temperature: float
    win: bool


@dataclass(slots=True)
class Drawn:
    """What candidates tell.

    Attributes:
        tokens: of each row; None where they do not tell.
        rivals: by row.
    """

    tokens: list[int | None]
    rivals: dict[int, Rivals]

    def settle(self, scores: dict[int, Tensor]) -> list[int | None]:
        """Compares tokens with their rivals, and returns what they then are.

        Args:
            scores: of the rivals' ids by row, each `[M]` float32 on the CPU.
        """
        for row, found in scores.items():
            rivals = self.rivals[row]
            values = found / torch.tensor(rivals.temperature)
            sums = values.double() + random.gumbel(rivals.key, rivals.ids[None])[0]
            best, place = sums.max(-1)
            if best > rivals.bound:
                self.tokens[row] = int(rivals.ids[place]) if rivals.win else None
        return self.tokens


def draw_from(candidates: Candidates, draws: list[Draw]) -> list[int | None]:
    """Draws one token per row, from candidates that are warped, of rows on the CPU.

    Returns:
        Token ids, and None where the candidates do not tell.
    """
    drawn = draw_among(candidates, draws)
    rows = candidates.rows
    return drawn.settle({row: rows[row][rivals.ids] for row, rivals in drawn.rivals.items()})


def draw_among(candidates: Candidates, draws: list[Draw]) -> Drawn:
    """Draws one token per row, and finds the ids beyond the candidates that it has to beat.

    The highest sum among ids that may be kept is also the highest among kept ids,
    if its id is kept for sure: whether others are kept does not matter.
    """
    c = candidates
    row_keys = keys(draws)
    sums = c.values.double() + random.gumbel(row_keys, c.ids)
    sums = sums.masked_fill(~c.possible, -torch.inf)
    best, index = sums.max(-1, keepdim=True)
    gaps = [NORMALIZED_GAP * draw.choosing.config.renormalize_logits for draw in draws]
    is_alone = (sums >= best - torch.tensor(gaps)[:, None]).sum(-1) == 1
    sure = (c.certain.gather(1, index)[:, 0] & is_alone & ~c.undecided).tolist()
    drawn = c.ids.gather(1, index)[:, 0].tolist()
    tokens = [token if is_sure else None for token, is_sure in zip(drawn, sure, strict=True)]
    rivals = {}
    for row in c.tail_possible.nonzero()[:, 0].tolist():
        if not sure[row]:
            continue
        key, bound = row_keys[row : row + 1], float(best[row]) - gaps[row]
        if ids := _loud(c, row, key, bound):
            win = bool(c.tail_certain[row]) and not gaps[row]
            rivals[row] = Rivals(torch.tensor(ids), bound, key, c.temperatures[row], win)
    return Drawn(tokens, rivals)


def _loud(c: Candidates, row: int, key: Tensor, bound: float) -> list[int]:
    """Returns the ids beyond the candidates whose sums may be above a bound.

    No score there is above the lowest candidate's, so little noise is loud enough.
    """
    least = bound - float(c.values[row, -1])
    found: list[int] = random.louder(int(key), len(c.rows[row]), least).tolist()
    known = set(c.ids[row].tolist()) if found else set()
    return [token_id for token_id in found if token_id not in known]
