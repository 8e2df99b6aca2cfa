"""Hugging Face's warpers, on candidates.

Each says of every candidate whether it is kept for sure, possibly, or not, and
whether anything beyond the candidates may be. An error bound is generous where
that is simple: it costs a slower way for the rare row whose draw falls within
it, never a wrong token.

N: rows, K: candidates.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model_service.engine.sampling.candidates import ULP, Candidates
from model_service.protocol.parameters import PROCESSORS, GenerationConfig

TOP_H_IDS = 100
"""Number of ids that Hugging Face's top-h looks at."""

# Exponentials and cumulative sums, on top of the sum that normalizes them.
MASS_ERROR = 1e-5

# Probabilities below this are too close to the smallest float32 to be compared.
LOWEST_LOG = -70.0

Column = Callable[[Callable[[GenerationConfig], float]], Tensor]


def asked(config: GenerationConfig) -> frozenset[str]:
    """Returns the names of the warpers that a configuration asks for."""
    return frozenset(name for name, is_on, _ in _ORDER if is_on(config))


def warp(
    candidates: Candidates, configs: list[GenerationConfig], names: list[frozenset[str]]
) -> None:
    """Applies the warpers that the rows ask for, in Hugging Face's order.

    Args:
        candidates: of the rows.
        configs: of each row.
        names: what `asked` returned for each of them.
    """

    def column(read: Callable[[GenerationConfig], float]) -> Tensor:
        """Reads a parameter of every row, `[N, 1]` float64."""
        return torch.tensor([read(config) for config in configs], dtype=torch.float64)[:, None]

    wanted = frozenset().union(*names)
    for name, _, apply in _ORDER:
        if name in wanted:
            apply(candidates, torch.tensor([name in row for row in names]), column)


def _top_n_sigma(c: Candidates, on: Tensor, column: Column) -> None:
    deviations = c.deviations(on & ~c.undecided)[:, None]
    bound = -deviations * column(lambda config: config.top_n_sigma)
    error = ULP * (bound.abs() + c.values[:, :1].abs())
    above = (c.logs > bound + error) | (c.logs == 0)
    c.restrict_to_highest(on, _keep(column), above, c.logs < bound - error)


def _top_h(c: Candidates, on: Tensor, column: Column) -> None:
    if c.values.shape[-1] < TOP_H_IDS:
        c.undecided |= on & c.tail_possible  # the entropy covers more ids
    left = c.possible[:, :TOP_H_IDS]
    c.undecided |= on & (left != c.certain[:, :TOP_H_IDS]).any(-1)
    logs = c.logs[:, :TOP_H_IDS].masked_fill(~left, -torch.inf)
    probs = (logs - logs.logsumexp(-1, keepdim=True)).exp()
    terms = -torch.xlogy(probs, probs)
    entropy = terms.sum(-1, keepdim=True)
    sums = terms.cumsum(-1)
    limit = entropy * column(lambda config: config.top_h or 1.0)
    # Theirs normalizes with numbers as large as the scores are.
    error = MASS_ERROR * (1 + entropy) + ULP * c.values[:, :1].abs() * (2 + entropy)
    certain = torch.zeros_like(c.certain)
    possible = torch.zeros_like(c.possible)
    certain[:, :TOP_H_IDS] = sums <= limit - error
    possible[:, :TOP_H_IDS] = sums <= limit + error
    certain[:, 0] = possible[:, 0] = True
    c.restrict_to_prefix(on, certain, possible)


def _top_k(c: Candidates, on: Tensor, column: Column) -> None:
    count = c.values.shape[-1]
    keep = column(lambda config: max(config.top_k, config.min_tokens_to_keep)).long()
    last = c.values.gather(1, keep.clamp(1, count) - 1)
    last = last.masked_fill(keep > count, -torch.inf)
    kept = c.values >= last
    tail = (keep > count) | (c.values[:, -1:] == last)  # ties of the last one
    c.restrict(on, kept, kept, tail[:, 0])


def _top_p(c: Candidates, on: Tensor, column: Column) -> None:
    c.measure(on & c.tail_possible & c.tail_weight.isinf(), moments=False)
    weights = c.weights * c.possible
    above = weights.cumsum(-1) - weights
    least, greatest = c.mass()
    limit = 1 - column(lambda config: config.top_p)
    error = 2 * c.rounding() + MASS_ERROR
    rank = torch.arange(weights.shape[-1])
    first = rank < column(lambda config: config.min_tokens_to_keep)
    certain = (1 - above / least > limit + error) | first
    possible = (1 - above / greatest > limit - error) | first
    c.restrict_to_prefix(on, certain, possible)


def _min_p(c: Candidates, on: Tensor, column: Column) -> None:
    bound = column(lambda config: config.min_p or 1.0).log()
    error = _log_error(c)
    above = (c.logs > bound + error) | (c.logs == 0)
    keep = _keep(column)
    # Theirs ranks probabilities, and of equal ones takes any.
    count = c.logs.shape[-1]
    last = c.logs.gather(1, keep.clamp_max(count) - 1)
    following = c.logs.gather(1, keep.clamp_max(count - 1))
    tied = (last - following <= 4 * ULP * (1 + last.abs())) | (last < LOWEST_LOG)
    decides = (keep > 1) & (last <= bound + 4 * ULP * (1 + last.abs()) + c.rounding())
    c.undecided |= on & ((bound < LOWEST_LOG) | (decides & tied))[:, 0]
    c.restrict_to_highest(on, keep, above, c.logs < bound - error)


def _typical_p(c: Candidates, on: Tensor, column: Column) -> None:
    entropy, error = _entropy(c, on)
    total = c.mass()[1]
    weights = c.weights * c.possible
    surprise = total.log() - c.logs
    distance = (surprise - entropy).abs().masked_fill(~c.possible, torch.inf)
    error = error + _log_error(c).masked_fill(~c.possible, 0.0).amax(-1, keepdim=True)
    order = distance.argsort(-1)
    distance, ranked = distance.gather(1, order), weights.gather(1, order)
    before = torch.nn.functional.pad(ranked.cumsum(-1), (1, 0))  # [N, K + 1]
    fewest = torch.searchsorted(distance, distance - 2 * error)  # that surely come before
    most = torch.searchsorted(distance, distance + 2 * error, right=True)  # that may, and itself
    # An id beyond the candidates is more surprising than all of them.
    nearest = (surprise[:, -1:] - entropy).clamp_min(0.0)
    beyond = torch.where(c.tail_possible, c.tail_weight, 0.0)[:, None]
    reached = c.tail_possible[:, None] & (distance + 2 * error >= nearest)
    highest = before.gather(1, most) - ranked + torch.where(reached, beyond, 0.0)
    lowest = before.gather(1, fewest)
    limit = column(lambda config: config.typical_p) * total
    slack = (2 * c.rounding() + MASS_ERROR) * total
    keep = _keep(column)
    certain = (highest < limit - slack) | ((most <= keep) & ~reached)
    possible = (lowest < limit + slack) | (fewest < keep)
    # The nearest id beyond the candidates has at least the candidates before it that are nearer.
    ahead = torch.searchsorted(distance, nearest - 2 * error)
    tail = (before.gather(1, ahead) < limit + slack) | (ahead < keep)
    back = order.argsort(-1)
    c.restrict(on, certain.gather(1, back), possible.gather(1, back), tail[:, 0])


def _epsilon_cutoff(c: Candidates, on: Tensor, column: Column) -> None:
    c.measure(on & c.tail_possible & c.tail_weight.isinf(), moments=False)
    bound = column(lambda config: config.epsilon_cutoff or 0.5).log()
    _cut_off(c, on, column, bound, 0.0)


def _eta_cutoff(c: Candidates, on: Tensor, column: Column) -> None:
    entropy, error = _entropy(c, on)
    eta = column(lambda config: config.eta_cutoff or 0.5).log()
    bound = torch.minimum(eta, eta / 2 - entropy)
    _cut_off(c, on, column, bound, error)


def _cut_off(
    c: Candidates, on: Tensor, column: Column, bound: Tensor, bound_error: Tensor | float
) -> None:
    """Removes ids whose log-probability is below a bound."""
    least, greatest = c.mass()
    error = _log_error(c) + bound_error
    c.undecided |= on & (bound[:, 0] < LOWEST_LOG)
    above = c.logs - greatest.log() > bound + error
    below = c.logs - least.log() < bound - error
    c.restrict_to_highest(on, _keep(column), above, below)


def _keep(column: Column) -> Tensor:
    return column(lambda config: config.min_tokens_to_keep).long()


def _log_error(c: Candidates) -> Tensor:
    """Bounds the error of log-probabilities in float32, `[N, K]` float64."""
    return c.rounding() + 4 * ULP * (1 + c.logs.abs())


def _entropy(c: Candidates, on: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the entropy of what is kept and its error in float32, `[N, 1]` float64.

    A row where it is not certain what is kept becomes undecided.
    """
    c.measure(on & c.tail_possible, moments=True)
    least, greatest = c.mass()
    c.undecided |= on & (least != greatest)[:, 0]
    moment = (c.weights * c.logs).masked_fill(~c.possible, 0.0).sum(-1)
    moment += torch.where(c.tail_possible, c.tail_moment, 0.0)
    entropy = greatest.log() - moment[:, None] / greatest
    # Theirs normalizes with numbers as large as the scores are.
    error = 4 * (c.rounding() + MASS_ERROR) * (1 + entropy) + 4 * ULP * c.values[:, :1].abs()
    return entropy, error


_WARPERS: dict[str, Callable[[Candidates, Tensor, Column], None]] = {
    "top_n_sigma": _top_n_sigma,
    "top_h": _top_h,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
    "typical_p": _typical_p,
    "epsilon_cutoff": _epsilon_cutoff,
    "eta_cutoff": _eta_cutoff,
}
"""By name. Temperature has been applied to candidates."""

_ORDER = [(row.name, row.is_on, _WARPERS[row.name]) for row in PROCESSORS if row.name in _WARPERS]
