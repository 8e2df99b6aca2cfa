"""Chooses tokens of rows that are on a GPU, and waits for it twice a step at most.

A copy to the CPU waits for all that the GPU has still to do, so rows are not looked at
one by one here. One copy brings what mostly tells: the best id of each row, and of
sampled rows the highest scores and what all of them sum to. A second one brings what
is then missing: the scores of a few ids, and whole rows that only the CPU can choose
for, or that are reported.

R: rows of the step, W: their width, S: sampled rows, K: candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.choosing import Draw
from model_service.engine.sampling.draw import Drawn, draw_among
from model_service.engine.sampling.warpers import warp

NUM_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class RowOnCpu:
    """A row that was brought over whole.

    Attributes:
        logits: `[W]` float32.
        guide_logits: `[W]` float32 of its guide, if it has one.
    """

    logits: Tensor
    guide_logits: Tensor | None


@dataclass(slots=True)
class SummedCandidates(Candidates):
    """Candidates of rows that stay on a GPU, which has summed them up beforehand.

    Attributes:
        totals: sum of exp(score - highest) of all ids, `[N]` float64.
        moments: sum of exp(score - highest) * (score - highest).
        spreads: standard deviation of the scores that are not excluded.
    """

    totals: Tensor
    moments: Tensor
    spreads: Tensor

    def measure(self, rows: Tensor, moments: bool) -> None:
        """Takes what is beyond the candidates of some rows, `[N]` bool, from the sums."""
        weights = self.weights
        outside = (self.totals - weights.sum(-1)).clamp_min(0.0)
        self.tail_weight = torch.where(rows, outside, self.tail_weight)
        if moments:
            inside = (weights * self.logs).nan_to_num().sum(-1)
            outside = (self.moments - inside).clamp_max(0.0)
            self.tail_moment = torch.where(rows, outside, self.tail_moment)

    def deviations(self, rows: Tensor) -> Tensor:
        """Returns the deviations of some rows, `[N]` bool, and 0 for the others: `[N]` float64."""
        return torch.where(rows, self.spreads, 0.0)


def choose(logits: Tensor, draws: list[Draw]) -> tuple[dict[int, int], dict[int, RowOnCpu]]:
    """Chooses as far as the first copy tells.

    Args:
        logits: `[R, W]` float32 on a GPU, not modified.
        draws: one for each row, in order.

    Returns:
        Tokens, and rows that were brought over: those without a token and those that are
        reported. Both by index.
    """
    covered = [i for i, draw in enumerate(draws) if draw.choosing.covered and not draw.wants_scores]
    scores, covered = _processed(logits, draws, covered)
    sampled = [i for i in covered if draws[i].choosing.config.do_sample]
    sums, best, highest, *summed = _together(
        logits.sum(-1), scores.argmax(-1), scores.amax(-1), *_summed(scores, draws, sampled)
    )
    finite, has_best = sums.isfinite().tolist(), highest.isfinite().tolist()
    certain = {i for i in covered if has_best[i] and (finite[i] or _takes_all(draws[i]))}
    tokens = {i: int(best[i]) for i in certain.difference(sampled)}
    drawn = _drawn(scores, draws, sampled, summed) if sampled else Drawn([], {})
    for place, i in enumerate(sampled):
        token_id, rivals = drawn.tokens[place], drawn.rivals.get(place)
        if token_id is not None and i in certain and (rivals is None or rivals.win):
            tokens[i] = token_id
    contested = [place for place in drawn.rivals if sampled[place] in tokens]
    whole = [i for i, draw in enumerate(draws) if i not in tokens or draw.wants_row]
    if not contested and not whole:
        return tokens, {}
    rival_scores, rows = _missing(
        scores, logits, draws, {sampled[p]: drawn.rivals[p].ids for p in contested}, whole
    )
    drawn.settle({place: rival_scores[sampled[place]] for place in contested})
    for place in contested:
        token_id = drawn.tokens[place]
        assert token_id is not None, "A rival that may not win was asked for. This is a bug."
        tokens[sampled[place]] = token_id
    return tokens, rows


def bring(logits: Tensor, rows: list[int]) -> list[Tensor]:
    """Returns rows, each `[W]` float32, on the CPU, at one copy for all of them."""
    if logits.device.type == "cpu" or not rows:
        return [logits[row] for row in rows]
    return [*select(logits, rows).cpu().unbind()]


def upload(values: list[int] | list[float], like: Tensor) -> Tensor:
    """Copies numbers to where a tensor is, for which nobody waits: `[N]` int64 or float32."""
    return torch.tensor(values).to(like.device, non_blocking=True)


# --- On the GPU ----------------------------------------------------------------------------------


def _processed(logits: Tensor, draws: list[Draw], covered: list[int]) -> tuple[Tensor, list[int]]:
    """Applies what comes before the warpers.

    Returns:
        `[R, W]` float32, the logits themselves where nothing changes, and those of the covered
        rows whose processors did not fail.
    """
    width = logits.shape[-1]
    sizes = [draw.choosing.revision.size for draw in draws]
    changed = [i for i in covered if draws[i].choosing.prepared()]
    is_narrow = any(sizes[i] < width for i in covered)
    if not changed and not is_narrow:
        return logits, covered
    scores = logits.clone()
    if is_narrow:
        beyond = torch.arange(width, device=logits.device) >= upload(sizes, logits)[:, None]
        scores.masked_fill_(beyond, -torch.inf)
    rows = scores.unbind()
    failed = set()
    for i in changed:
        row, draw = rows[i][: sizes[i]], draws[i]
        try:
            draw.choosing.prepared()(row, draw.token_ids)
        except ArithmeticError:  # the reference will report it
            failed.add(i)
    return scores, [i for i in covered if i not in failed]


def _summed(scores: Tensor, draws: list[Draw], sampled: list[int]) -> list[Tensor]:
    """Finds the highest scores of sampled rows `[S, K]`, their ids, and sums over all ids `[S]`."""
    if not sampled:
        return []
    rows = select(scores, sampled)
    values, ids = rows.topk(min(NUM_CANDIDATES, rows.shape[-1]))
    configs = [draws[i].choosing.config for i in sampled]
    divided = rows / upload([config.temperature for config in configs], rows)[:, None]
    logs = divided - divided.gather(1, ids[:, :1])
    weights = logs.exp()
    total = weights.sum(-1, dtype=torch.float64)
    moment = (weights * logs).nansum(-1, dtype=torch.float64)  # -inf has weight 0
    if any("top_n_sigma" in draws[i].choosing.warpers for i in sampled):
        spread = _deviation(divided.double())
    else:
        spread = torch.zeros_like(total)
    return [values, ids, total, moment, spread]


def _deviation(values: Tensor) -> Tensor:
    """Returns the standard deviation of what is finite in rows `[S, W]` float64."""
    finite = values.isfinite()
    count = finite.sum(-1, keepdim=True)
    mean = values.masked_fill(~finite, 0.0).sum(-1, keepdim=True) / count
    squares = (values - mean).square().masked_fill(~finite, 0.0)
    return (squares.sum(-1, keepdim=True) / count).sqrt()[:, 0]


def select(rows: Tensor, indices: list[int]) -> Tensor:
    """Returns some of the rows, `[R, W]` float32, in another order if need be."""
    if indices == list(range(len(rows))):
        return rows
    return rows.index_select(0, upload(indices, rows))


def _missing(
    scores: Tensor, logits: Tensor, draws: list[Draw], ids: dict[int, Tensor], whole: list[int]
) -> tuple[dict[int, Tensor], dict[int, RowOnCpu]]:
    """Brings single scores and whole rows over in one copy.

    Args:
        scores: `[R, W]` float32.
        logits: `[R, W]` float32.
        draws: one for each row.
        ids: whose scores are wanted, by index.
        whole: indices of the rows that are wanted.
    """
    parts: list[Tensor] = []
    if ids:
        rows = torch.cat([torch.full_like(found, index) for index, found in ids.items()])
        places = torch.stack([rows, torch.cat([*ids.values()])])
        there = places.to(scores.device, non_blocking=True)
        parts.append(scores[there[0], there[1]])
    parts += [logits[index] for index in whole]
    guides = {i: guide for i in whole if (guide := draws[i].guide_logits) is not None}
    found = _together(*parts, *guides.values(), dtype=torch.float32)
    lengths = [len(one) for one in ids.values()]
    single = dict(zip(ids, torch.split(found[0], lengths), strict=True)) if ids else {}
    rest = found[1:] if ids else found
    guide_rows = dict(zip(guides, rest[len(whole) :], strict=True))
    return single, {
        index: RowOnCpu(row, guide_rows.get(index))
        for index, row in zip(whole, rest[: len(whole)], strict=True)
    }


def _together(*parts: Tensor, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Brings tensors over in one copy, as float64 if need be, which holds ids exactly."""
    flat = torch.cat([part.to(dtype).flatten() for part in parts]).cpu()
    pieces = torch.split(flat, [part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


# --- On the CPU ----------------------------------------------------------------------------------


def _drawn(scores: Tensor, draws: list[Draw], sampled: list[int], summed: list[Tensor]) -> Drawn:
    """Draws from candidates, as far as they tell."""
    values, ids, totals, moments, spreads = summed
    rows = scores.unbind()
    members = [draws[i] for i in sampled]
    configs = [draw.choosing.config for draw in members]
    candidates = SummedCandidates.of(
        [rows[i] for i in sampled],
        [config.temperature for config in configs],
        values.float(),
        ids.long(),
        totals=totals,
        moments=moments,
        spreads=spreads,
    )
    warp(candidates, configs, [draw.choosing.warpers for draw in members])
    return draw_among(candidates, members)


def _takes_all(draw: Draw) -> bool:
    return draw.choosing.config.remove_invalid_values
