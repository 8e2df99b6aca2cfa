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

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_service.engine.sampling import gpu_rows, processors, row_failure
from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.choosing import Draw
from model_service.engine.sampling.draw import draw_from, noise
from model_service.engine.sampling.score_rows import ScoreRows
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sampling.torch_draws import TorchDraws
from model_service.engine.sampling.warpers import warp
from model_service.protocol import Failure
from model_service.protocol.parameters import GenerationConfig

WIDTHS = (64, 256, 1024, 4096)
"""Numbers of candidates. Where one does not tell, the next is tried."""

NARROW_TOP_K = 56
"""Up to here top-k fits the first width, with room for ties."""


@dataclass(slots=True)
class Choice:
    """The outcome for one row.

    Attributes:
        token_id: the token, or None on failure.
        scores: processed scores `[V]` on the CPU when they were wanted.
        failure: why no token was chosen.
        logits: the row of logits `[W]` on the CPU, where it had to be brought there.
    """

    token_id: int | None = None
    scores: Tensor | None = None
    failure: Failure | None = None
    logits: Tensor | None = None


@one_thread()
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
    if logits.device.type != "cpu":
        return _choose_on_gpu(logits, draws)
    if len(draws) < len(logits):  # rows behind drafts are not due yet
        logits = logits[[draw.row for draw in draws]]
        draws = [replace(draw, row=row) for row, draw in enumerate(draws)]
    scores = ScoreRows(logits)
    choices: dict[int, Choice] = {}
    plain: dict[int, Draw] = {}
    changed: dict[int, Draw] = {}
    for index, draw in enumerate(draws):
        choosing = draw.choosing
        if not choosing.config.remove_invalid_values and not _is_usable(scores, draw):
            choices[index] = Choice(failure=_failure("NonFiniteLogits", draw))
        elif choosing.covered and not draw.wants_scores:
            (changed if _changes(scores, draw) else plain)[index] = draw
    choices |= _choose_covered(scores, plain)
    if changed:
        choices |= _choose_covered(*_process(logits, changed))
    return [
        choices[index] if index in choices else _by_reference(logits[draw.row], draw)
        for index, draw in enumerate(draws)
    ]


def _choose_on_gpu(logits: Tensor, draws: list[Draw]) -> list[Choice]:
    tokens, rows = gpu_rows.choose(gpu_rows.select(logits, [draw.row for draw in draws]), draws)
    choices = {index: Choice(token_id) for index, token_id in tokens.items()}
    if left := [index for index in rows if index not in tokens]:
        moved = [
            replace(draws[index], row=row, guide_logits=rows[index].guide_logits)
            for row, index in enumerate(left)
        ]
        chosen = _choose(torch.stack([rows[index].logits for index in left]), moved)
        choices |= dict(zip(left, chosen, strict=True))
    for index, row in rows.items():
        choices[index].logits = row.logits
    return [choices[index] for index in range(len(draws))]


def _is_usable(scores: ScoreRows, draw: Draw) -> bool:
    """Whether a token can be chosen by the logits of a row's revision.

    `-inf` excludes an id. NaN and `inf` are faults, and so is a row that excludes every id.
    """
    size = draw.choosing.revision.size
    if size == scores.matrix.shape[-1]:
        return math.isfinite(scores.highest[draw.row])
    return _is_finite(scores.matrix[draw.row, :size])


def _is_finite(row: Tensor) -> bool:
    """Whether a row's highest value is a number; NaN is the highest of all."""
    return bool(row.amax().isfinite())


def _changes(scores: ScoreRows, draw: Draw) -> bool:
    """Whether the scores of a row differ from its logits, or have fewer ids."""
    choosing = draw.choosing
    return bool(choosing.prepared()) or choosing.revision.size < scores.matrix.shape[-1]


def _process(logits: Tensor, draws: dict[int, Draw]) -> tuple[ScoreRows, dict[int, Draw]]:
    """Applies what comes before the warpers.

    Args:
        logits: `[N, W]` float32, not modified.
        draws: the rows.

    Returns:
        The scores, and the draws from them; without those whose processors fail, which the
        reference will report.
    """
    rows = logits.new_empty(len(draws), logits.shape[-1])
    processed = {}
    for place, (index, draw) in enumerate(draws.items()):
        row, size = rows[place], draw.choosing.revision.size
        row[:size] = logits[draw.row, :size]
        row[size:] = -torch.inf
        with contextlib.suppress(ArithmeticError):
            draw.choosing.prepared()(row[:size], draw.token_ids)
            processed[index] = replace(draw, row=place)
    return ScoreRows(rows), processed


def _choose_covered(scores: ScoreRows, draws: dict[int, Draw]) -> dict[int, Choice]:
    """Chooses by arg-max and from candidates, as far as those tell."""
    greedy: dict[int, Draw] = {}
    sampled: dict[int, Draw] = {}
    for index, draw in draws.items():
        if math.isfinite(scores.highest[draw.row]):
            (sampled if draw.choosing.config.do_sample else greedy)[index] = draw
    tokens = _choose_greedy(scores, greedy) | _choose_sampled(scores, sampled)
    return {index: Choice(token_id) for index, token_id in tokens.items()}


def _choose_greedy(scores: ScoreRows, draws: dict[int, Draw]) -> dict[int, int]:
    """Takes the highest score, ties to the lowest id. Returns tokens by index of draw."""
    best = scores.best([draw.row for draw in draws.values()]) if draws else []
    return dict(zip(draws, best, strict=True))


def _choose_sampled(scores: ScoreRows, draws: dict[int, Draw]) -> dict[int, int]:
    """Draws from candidates, from more of them as long as that may help."""
    tokens = {}
    waiting: dict[int, dict[int, Draw]] = {width: {} for width in WIDTHS}
    for index, draw in draws.items():
        waiting[_width(draw.choosing.config)][index] = draw
    for width, wider in zip(WIDTHS, (*WIDTHS[1:], None), strict=True):
        if not waiting[width]:
            continue
        members = [*waiting[width].values()]
        configs = [draw.choosing.config for draw in members]
        candidates = Candidates.find(
            scores, [draw.row for draw in members], [c.temperature for c in configs], width
        )
        warp(candidates, configs, [draw.choosing.warpers for draw in members])
        drawn = draw_from(candidates, members)
        grows = candidates.tail_possible.tolist()
        for place, (index, draw) in enumerate(waiting[width].items()):
            token_id = drawn[place]
            if token_id is not None:
                tokens[index] = token_id
            elif wider is not None and grows[place]:
                waiting[wider][index] = draw
    return tokens


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
        models_own = [logits] if guide_logits is None else [logits, guide_logits]
        are_usable = all(_is_finite(row[:size]) for row in models_own)
        whose = "NonFiniteScores" if are_usable else "NonFiniteLogits"
        return Choice(failure=_failure(whose, draw))
    return Choice(scores=scores)


def _width(config: GenerationConfig) -> int:
    """Guesses how many candidates decide a row."""
    keep = max(config.top_k, config.min_tokens_to_keep)
    is_narrow = config.top_k and keep <= NARROW_TOP_K and config.top_h is None
    return WIDTHS[0] if is_narrow else WIDTHS[1]


def _failure(error: str, draw: Draw, **details: int) -> Failure:
    return Failure(error, {"row": draw.index, "position": len(draw.token_ids), **details})
