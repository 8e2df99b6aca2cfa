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
   the first two do (`coverage.py`), or that the second cannot decide for sure:
   Hugging Face's own classes (`processors.py`).

N: rows, V: ids of the newest revision.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_service.engine.sampling import processors
from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.draw import draw_from, noise
from model_service.engine.sampling.row_processors import RowProcessors
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sampling.torch_draws import TorchDraws
from model_service.engine.sampling.warpers import warp
from model_service.engine.sequences import row_failure
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Failure
from model_service.protocol.parameters import GenerationConfig

WIDTHS = (64, 256, 1024, 4096)
"""Numbers of candidates. Where one does not tell, the next is tried."""

NARROW_TOP_K = 48
"""Up to here top-k fits the first width, with room for ties."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One row to choose for.

    Attributes:
        sequence: whose next token.
        row: its row of logits.
        wants_scores: whether the full processed scores are needed afterwards.
        drafts: guesses of this token and of those behind it, whose rows follow.
    """

    sequence: Sequence
    row: int
    wants_scores: bool
    drafts: tuple[int, ...] = ()


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


class Sampler:
    """Stateless but for the vocabulary's revisions."""

    def __init__(self, revisions: list[RevisionRows]) -> None:
        """Reads sizes and forbidden ids from `revisions`, which grows in place."""
        self._revisions = revisions

    @torch.inference_mode()
    def choose(self, logits: Tensor, draws: list[Draw]) -> list[Choice]:
        """Chooses one token per draw.

        If that fails, each row is tried alone, and only the rows that fail then end.

        Args:
            logits: `[N, V]` float32, not modified.
            draws: the rows to choose for.
        """
        try:
            return self._choose(logits, draws)
        except Exception as error:  # of one row, which must not affect the others
            failed = error
        if len(draws) == 1:
            return [Choice(failure=row_failure.internal(failed))]
        return [self.choose(logits, [draw])[0] for draw in draws]

    def _choose(self, logits: Tensor, draws: list[Draw]) -> list[Choice]:
        if len(draws) < len(logits):  # rows behind drafts are not due yet
            logits = logits[[draw.row for draw in draws]]
            draws = [replace(draw, row=row) for row, draw in enumerate(draws)]
        sizes = [self._revisions[draw.sequence.revision].size for draw in draws]
        usable = _usable(logits, [draw.row for draw in draws], sizes)
        failures: dict[int, Failure] = {}
        greedy: list[int] = []
        sampled: list[int] = []
        for index, draw in enumerate(draws):
            seq = draw.sequence
            if not usable[index] and not seq.config.remove_invalid_values:
                failures[index] = _failure("NonFiniteLogits", seq)
            elif seq.covered and not draw.wants_scores and seq.kind != "beam":
                (sampled if seq.config.do_sample else greedy).append(index)
        tokens = self._choose_greedy(logits, draws, greedy)
        tokens |= self._choose_sampled(logits, draws, sampled)
        choices = []
        for index, draw in enumerate(draws):
            if index in failures:
                choices.append(Choice(failure=failures[index]))
            elif draw.sequence.kind == "beam":  # its search chooses
                choices.append(self._score(logits[draw.row], draw.sequence))
            elif index in tokens:
                choices.append(Choice(tokens[index]))
            else:
                choices.append(self._by_reference(logits[draw.row], draw.sequence))
        return choices

    def _choose_greedy(
        self, logits: Tensor, draws: list[Draw], indices: list[int]
    ) -> dict[int, int]:
        """Takes the highest score, ties to the lowest id. Returns tokens by index of draw."""
        tokens = {}
        plain = []
        for index in indices:
            row = self._process(logits[draws[index].row], draws[index].sequence)
            if row is None:
                continue
            if row.data_ptr() == logits[draws[index].row].data_ptr() and len(row) == len(logits[0]):
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
        self, logits: Tensor, draws: list[Draw], indices: list[int]
    ) -> dict[int, int]:
        """Draws from candidates, from more of them as long as that may help."""
        tokens = {}
        waiting: dict[int, list[tuple[int, Tensor]]] = {width: [] for width in WIDTHS}
        for index in indices:
            seq = draws[index].sequence
            row = self._process(logits[draws[index].row], seq)
            if row is not None:
                waiting[_width(seq.config)].append((index, row))
        for width, wider in zip(WIDTHS, (*WIDTHS[1:], None), strict=True):
            if not waiting[width]:
                continue
            members = [draws[index].sequence for index, _ in waiting[width]]
            configs = [seq.config for seq in members]
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
    def _process(self, logits: Tensor, seq: Sequence) -> Tensor | None:
        """Applies what comes before the warpers.

        Args:
            logits: `[V]` float32, not modified.
            seq: whose row.

        Returns:
            `[size]` float32, a view of `logits` where nothing changes; None where a
            processor fails, which the reference will report.
        """
        revision = self._revisions[seq.revision]
        if seq.row_processors is None:
            seq.row_processors = RowProcessors(seq.config, seq.for_processors(), revision.forbidden)
        row = logits[: revision.size]
        try:
            return seq.row_processors(row, seq.token_ids) if seq.row_processors else row
        except ArithmeticError:
            return None

    @one_thread()
    def _by_reference(self, logits: Tensor, seq: Sequence) -> Choice:
        """Chooses with Hugging Face's classes, from full scores."""
        choice = self._score(logits, seq)
        if choice.scores is None:
            return choice
        scores = choice.scores
        left = (scores > -torch.inf).nonzero()[:, 0]
        if len(left) == 0:
            return Choice(failure=_failure("NoTokenLeft", seq))
        if not seq.config.do_sample:
            return Choice(int(scores.argmax()), scores)
        if seq.config.seed_mode == "torch":
            if seq.torch_draws is None:
                seq.torch_draws = TorchDraws(seq.seed)
            return Choice(seq.torch_draws.draw(scores, seq.num_new_tokens), scores)
        sums = scores[left].double() + noise([seq], left[None])[0]
        return Choice(int(left[sums.argmax()]), scores)

    def _score(self, logits: Tensor, seq: Sequence) -> Choice:
        """Computes full scores with Hugging Face's classes, and chooses nothing."""
        revision = self._revisions[seq.revision]
        try:
            scores = processors.scores(seq, logits[: revision.size], revision.forbidden)
        except processors.ProcessorError as error:
            place = {"row": seq.row, "position": len(seq.token_ids)}
            return Choice(failure=row_failure.of_processors(error, **place))
        is_drawn_from = seq.config.do_sample  # by a softmax, which infinity makes NaN
        if scores.isnan().any() or (is_drawn_from and bool(scores.isposinf().any())):
            models_own = logits[None]
            if seq.guide is not None and seq.guide.next_logits is not None:
                models_own = torch.stack([logits, seq.guide.next_logits])
            rows = list(range(len(models_own)))
            are_usable = all(_usable(models_own, rows, [revision.size] * len(rows)))
            whose = "NonFiniteScores" if are_usable else "NonFiniteLogits"
            return Choice(failure=_failure(whose, seq))
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


def _failure(error: str, seq: Sequence) -> Failure:
    return Failure(error, {"row": seq.row, "position": len(seq.token_ids)})
