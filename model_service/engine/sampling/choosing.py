"""How the tokens of one row are chosen: all that the sampler knows of a row, except its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor

from model_service.engine.sampling import warpers
from model_service.engine.sampling.custom_processors import CustomProcessor
from model_service.engine.sampling.row import Row
from model_service.engine.sampling.row_processors import RowProcessors
from model_service.engine.sampling.torch_draws import TorchDraws
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol.parameters import CONFIG_PARAMETERS, GenerationConfig
from model_service.protocol.processor_order import applied_processors

_UNCOVERED = {
    do_sample: [
        (row.name, row.default)
        for row in CONFIG_PARAMETERS.values()
        if row.fast_path not in ("always", "when sampling" if do_sample else "when greedy")
    ]
    for do_sample in (False, True)
}
"""Fields that the fast path does not understand, as their rows in the table say, with the value
that turns them off, by `do_sample`. Sequences that use them are left to Hugging Face's classes."""


def covers(config: GenerationConfig) -> bool:
    """Whether the sampler's fast path does exactly what a configuration asks for."""
    return all(getattr(config, name) == off for name, off in _UNCOVERED[config.do_sample])


@dataclass(frozen=True, slots=True)
class ProcessorStep:
    """A processor at its place among the processors of a row.

    Attributes:
        name: its name; None for what keeps forbidden ids out, which no caller asked for.
        apply: maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32.
    """

    name: str | None
    apply: LogitsProcessor


@dataclass(slots=True, eq=False)
class Choosing:
    """A row's configuration, and what is made of it once it is needed.

    A row whose configuration, prompt or revision changes gets another one, by
    `dataclasses.replace`: what was made of the old one is never used with the new.

    Attributes:
        config: how tokens are chosen.
        seed: seed of the draws, [0, 2^63).
        revision: the ids that there are.
        prompt: the leading tokens that count as given, not generated.
        length_limit: tokens of the prompt and the longest continuation.
        searches: whether a beam search chooses, by scores that it asks for.
        custom: the operator's processors, by name.
        torch_draws: draws of seed mode `torch`, once they were needed.
        covered: whether the sampler's fast path does all that is asked for.
        warpers: names of the warpers that are asked for, as the fast path needs them at each token.
        row_processors: processors of the fast path, once they were needed; they follow the tokens.
        processors: processors of the reference, once they were needed.
    """

    config: GenerationConfig
    seed: int
    revision: RevisionRows
    prompt: tuple[int, ...]
    length_limit: int
    searches: bool = False
    custom: Mapping[str, CustomProcessor] = field(default_factory=dict)
    torch_draws: TorchDraws | None = None
    covered: bool = field(init=False)
    warpers: frozenset[str] = field(init=False)
    row_processors: RowProcessors | None = field(init=False, default=None)
    processors: list[ProcessorStep] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.covered = not self.searches and covers(self.config)
        self.warpers = warpers.asked(self.config)

    def prepared(self) -> RowProcessors:
        """Returns the processors of the fast path, which say whether they change anything."""
        if self.row_processors is None:
            self.row_processors = RowProcessors(
                self.config, self.for_processors(), self.revision.forbidden
            )
        return self.row_processors

    def for_processors(self) -> Row:
        """Returns what processors may know about the row."""
        size = self.revision.size
        return Row(
            prompt_token_ids=self.prompt,
            eos_token_ids=tuple(i for i in self.config.eos_token_ids if i < size),
            vocabulary_size=size,
            length_limit=self.length_limit,
            first_is_forced="forced_bos_token_id" in applied_processors(self.config),
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose.

    Attributes:
        choosing: how.
        token_ids: the tokens before it.
        row: its row of logits.
        index: of the row in its call, as failures name it.
        wants_scores: whether the full processed scores are needed afterwards.
        guide_logits: `[W]` float32 of the same token after the negative prompt, if it has a guide.
        wants_row: whether the row of logits is reported afterwards.
    """

    choosing: Choosing
    token_ids: list[int]
    row: int
    index: int = 0
    wants_scores: bool = False
    guide_logits: Tensor | None = None
    wants_row: bool = False
