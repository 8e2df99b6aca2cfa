"""Draws tokens: noise is added to scores, and the highest sums win.

N: rows, K: candidates.
"""

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


def draw_from(candidates: Candidates, draws: list[Draw]) -> list[int | None]:
    """Draws one token per row, from candidates that are warped.

    The highest sum among ids that may be kept is also the highest among kept ids,
    if its id is kept for sure: whether others are kept does not matter.

    Returns:
        Token ids, and None where the candidates do not tell.
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
    for row in c.tail_possible.nonzero()[:, 0].tolist():
        if not sure[row]:
            continue
        rivals = _rivals(c, row, row_keys[row : row + 1], float(best[row]) - gaps[row])
        if rivals:
            is_kept = bool(c.tail_certain[row]) and not gaps[row]
            tokens[row] = max(rivals)[1] if is_kept else None
    return tokens


def _rivals(c: Candidates, row: int, key: Tensor, bound: float) -> list[tuple[float, int]]:
    """Returns the sums above a bound of ids beyond the candidates, and the ids.

    No score there is above the lowest candidate's, so little noise is loud enough.
    """
    scores = c.rows[row]
    found = random.louder(int(key), len(scores), bound - float(c.values[row, -1])).tolist()
    known = set(c.ids[row].tolist()) if found else set()
    ids = torch.tensor([token_id for token_id in found if token_id not in known])
    if not len(ids):
        return []
    values = scores[ids.to(scores.device)].cpu() / torch.tensor(c.temperatures[row])
    sums = values.double() + random.gumbel(key, ids[None])[0]
    return [entry for entry in zip(sums.tolist(), ids.tolist(), strict=True) if entry[0] > bound]
