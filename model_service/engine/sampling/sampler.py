"""Chooses the next token of every row of a step.

Rows are independent: each is checked, processed and drawn by its own
configuration. Three ways lead to the same token, and the cheapest that is exact
is taken:

1. greedy rows: processors that touch a few ids (`row_processors.py`), then the
   arg-max, ties to the lowest id;
2. sampled rows: the same processors, then warpers on the highest-scored ids
   (`candidates.py`, `warpers.py`, `draw.py`), and on more of them where those do
   not tell;
3. any row whose full scores are wanted, whose configuration asks for more than
   the first two do (`choosing.py`), or that the second cannot decide for sure:
   Hugging Face's own classes (`processors.py`).

N: rows, V: ids of a row's revision; rows of logits may be wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_service.engine.sampling import processors, row_failure
from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.choosing import Draw
from model_service.engine.sampling.draw import draw_from, noise
from model_service.engine.sampling.row_processors import RowProcessors
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sampling.torch_draws import TorchDraws
from model_service.engine.sampling.warpers import warp
from model_service.protocol import Failure
from model_service.protocol.parameters import GenerationConfig

WIDTHS = (64, 256, 1024, 4096)
"""Numbers of candidates. Where one does not tell, the next is tried."""

NARROW_TOP_K = 48
"""Up to here top-k fits the first width, with room for ties."""


@dataclass(slots=True)
class Choice:
    """The outcome for one row.

    Attributes:
        token_id: the token, or None on failure.
        scores: processed scores `[V]` on the CPU when they were wanted.
        failure: why no token was chosen.
    """

    token_id: int | None = None
    scores: Tensor | None = None
    failure: Failure | None = None


@torch.inference_mode()
def choose(logits: Tensor, draws: list[Draw]) -> list[Choice]:
    """Chooses one token per draw.

    If that fails, each row is tried alone, and only the rows that fail then end.

    Args:
        logits: `[N, V]` float32, not modified.
        draws: the rows to choose for.
    """
    try:
        return _choose(logits, draws)
    except Exception as error:  # of one row, which must not affect the others
        failed = error
    if len(draws) == 1:
        return [Choice(failure=row_failure.internal(failed))]
    return [choose(logits, [draw])[0] for draw in draws]


def _choose(logits: Tensor, draws: list[Draw]) -> list[Choice]:
    if len(draws) < len(logits):  # rows behind drafts are not due yet
        logits = logits[[draw.row for draw in draws]]
        draws = [replace(draw, row=row) for row, draw in enumerate(draws)]
    rows = logits.unbind()  # at half the cost of picking each
    sizes = [draw.choosing.revision.size for draw in draws]
    usable = _usable(logits, [draw.row for draw in draws], sizes)
    failures: dict[int, Failure] = {}
    greedy: list[int] = []
    sampled: list[int] = []
    for index, draw in enumerate(draws):
        choosing = draw.choosing
        if not usable[index] and not choosing.config.remove_invalid_values:
            failures[index] = _failure("NonFiniteLogits", draw)
        elif choosing.covered and not draw.wants_scores:
            (sampled if choosing.config.do_sample else greedy).append(index)
    tokens = _choose_greedy(logits, rows, draws, greedy)
    tokens |= _choose_sampled(rows, draws, sampled)
    choices = []
    for index, draw in enumerate(draws):
        if index in failures:
            choices.append(Choice(failure=failures[index]))
        elif index in tokens:
            choices.append(Choice(tokens[index]))
        else:
            choices.append(_by_reference(rows[draw.row], draw))
    return choices


def _choose_greedy(
    logits: Tensor, rows: Sequence[Tensor], draws: list[Draw], indices: list[int]
) -> dict[int, int]:
    """Takes the highest score, ties to the lowest id. Returns tokens by index of draw."""
    tokens = {}
    plain = []
    for index in indices:
        raw = rows[draws[index].row]
        row = _process(raw, draws[index])
        if row is None:
            continue
        if row.data_ptr() == raw.data_ptr() and len(row) == len(raw):
            plain.append(index)  # unchanged and whole
            continue
        best = int(row.argmax())
        if row[best].isfinite():
            tokens[index] = best
    if plain:
        best_of_all = logits.argmax(-1).tolist()  # picking rows would copy them
        tokens |= {index: best_of_all[draws[index].row] for index in plain}
    return tokens


def _choose_sampled(
    rows: Sequence[Tensor], draws: list[Draw], indices: list[int]
) -> dict[int, int]:
    """Draws from candidates, from more of them as long as that may help."""
    tokens = {}
    waiting: dict[int, list[tuple[int, Tensor]]] = {width: [] for width in WIDTHS}
    for index in indices:
        row = _process(rows[draws[index].row], draws[index])
        if row is not None:
            waiting[_width(draws[index].choosing.config)].append((index, row))
    for width, wider in zip(WIDTHS, (*WIDTHS[1:], None), strict=True):
        if not waiting[width]:
            continue
        members = [draws[index] for index, _ in waiting[width]]
        configs = [draw.choosing.config for draw in members]
        candidates = Candidates.find(
            [row for _, row in waiting[width]], [c.temperature for c in configs], width
        )
        warp(candidates, configs)
        drawn = draw_from(candidates, members)
        grows = candidates.tail_possible.tolist()
        for place, (index, row) in enumerate(waiting[width]):
            token_id = drawn[place]
            if token_id is not None:
                tokens[index] = token_id
            elif wider is not None and grows[place]:
                waiting[wider].append((index, row))
    return tokens


@one_thread()
def _process(logits: Tensor, draw: Draw) -> Tensor | None:
    """Applies what comes before the warpers.

    Args:
        logits: `[W]` float32, W at least V, not modified.
        draw: the row.

    Returns:
        `[V]` float32, a view of `logits` where nothing changes; None where a
        processor fails, which the reference will report.
    """
    choosing = draw.choosing
    if choosing.row_processors is None:
        choosing.row_processors = RowProcessors(
            choosing.config, choosing.for_processors(), choosing.revision.forbidden
        )
    row = logits[: choosing.revision.size]
    try:
        return choosing.row_processors(row, draw.token_ids) if choosing.row_processors else row
    except ArithmeticError:
        return None


@one_thread()
def _by_reference(logits: Tensor, draw: Draw) -> Choice:
    """Chooses with Hugging Face's classes, from full scores. A search is given those alone."""
    choice, choosing = _score(logits, draw), draw.choosing
    if choice.scores is None or choosing.searches:
        return choice
    scores = choice.scores
    left = (scores > -torch.inf).nonzero()[:, 0]
    if len(left) == 0:
        forbidden = len(choosing.revision.forbidden)
        return Choice(failure=_failure("NoTokenLeft", draw, not_generable=forbidden))
    if not choosing.config.do_sample:
        return Choice(int(scores.argmax()), scores)
    if choosing.config.seed_mode == "torch":
        if choosing.torch_draws is None:
            choosing.torch_draws = TorchDraws(choosing.seed)
        num_new_tokens = len(draw.token_ids) - len(choosing.prompt)
        return Choice(choosing.torch_draws.draw(scores, num_new_tokens), scores)
    sums = scores[left].double() + noise([draw], left[None])[0]
    return Choice(int(left[sums.argmax()]), scores)


def _score(logits: Tensor, draw: Draw) -> Choice:
    """Computes full scores with Hugging Face's classes, and chooses nothing."""
    choosing, guide_logits = draw.choosing, draw.guide_logits
    size = choosing.revision.size
    try:
        scores = processors.scores(choosing, draw.token_ids, logits[:size], guide_logits)
    except processors.ProcessorError as error:
        position = len(draw.token_ids)
        return Choice(failure=row_failure.of_processors(error, row=draw.index, position=position))
    is_drawn_from = choosing.config.do_sample  # by a softmax, which infinity makes NaN
    if scores.isnan().any() or (is_drawn_from and bool(scores.isposinf().any())):
        models_own = torch.stack([logits, *([] if guide_logits is None else [guide_logits])])
        rows = list(range(len(models_own)))
        are_usable = all(_usable(models_own, rows, [size] * len(rows)))
        whose = "NonFiniteScores" if are_usable else "NonFiniteLogits"
        return Choice(failure=_failure(whose, draw))
    return Choice(scores=scores)


def _usable(logits: Tensor, rows: list[int], sizes: list[int]) -> list[bool]:
    """Says of some rows whether a token can be chosen by the first `sizes` values of each.

    `-inf` excludes an id. NaN and `inf` are faults, and so is a row that excludes every id.
    """
    # A finite sum has finite terms only, and costs one pass. Huge terms may overflow, though,
    # and ids after the last one of a row's revision do not count.
    finite: list[bool] = logits.sum(-1).isfinite().tolist()
    return [
        finite[row] or bool(logits[row, :size].amax().isfinite())  # NaN is the highest of all
        for row, size in zip(rows, sizes, strict=True)
    ]


def _width(config: GenerationConfig) -> int:
    """Guesses how many candidates decide a row."""
    keep = max(config.top_k, config.min_tokens_to_keep)
    is_narrow = config.top_k and keep <= NARROW_TOP_K and config.top_h is None
    return WIDTHS[0] if is_narrow else WIDTHS[1]


def _failure(error: str, draw: Draw, **details: int) -> Failure:
    return Failure(error, {"row": draw.index, "position": len(draw.token_ids), **details})
