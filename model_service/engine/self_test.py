"""Tries a runner before it is served: it must give what `generate` gives, or it is refused.

What `generate` gives is found out once, with the unchanged model. Then the
runner takes the same tokens as it will in operation: in chunks, in one ragged
batch, token by token, forked, cut back and with a grown vocabulary, on the
devices where the model is. Windows of attention are longer than any prompt that
could be tried at start, so all of it is done again with short ones.

V: ids of revision 0.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig as HFGenerationConfig
from transformers import PreTrainedConfig

from model_service.engine import placement
from model_service.engine.loader import LoadedModel, Refused
from model_service.engine.sequence import Run, Sequence
from model_service.engine.sequence_cache import SequenceCache
from model_service.engine.vocabulary import Vocabulary
from model_service.generation import GenerationConfig
from model_service.messages import NewRow

if TYPE_CHECKING:  # whose graphs are tried in the same way as a runner
    from model_service.engine.decode_graph.decode_graphs import DecodeGraphs

# Largest difference from the logits of `generate`, relative to the largest of them.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}

PROMPT_LENGTHS = (23, 9, 1)
NEW_TOKENS = 4

# Fields of a configuration that bound what a token sees, and the bound that is tried.
WINDOW_FIELDS = ("sliding_window", "attention_chunk_size")
SHORT_WINDOW = 5


class Runner(Protocol):
    """What runs a model.

    Attributes:
        vocabulary: rows and revisions; grown between steps.
        takes_drafts: whether runs may have drafts.
        graphs: steps compiled ahead of time, if the path has any.
        compiled: whether the last step ran as one of them.
    """

    vocabulary: Vocabulary
    takes_drafts: bool
    graphs: "DecodeGraphs"
    compiled: bool

    @property
    def name(self) -> Literal["fast", "compat"]:
        """What the path is called."""
        ...

    @property
    def cache(self) -> SequenceCache:
        """What holds the past of sequences."""
        ...

    def forward(self, runs: list[Run]) -> Tensor:
        """Advances `num_cached` of every run's sequence and returns `[R, V]` float32."""
        ...

    def read_windows(self) -> None:
        """Reads the windows of the layers from the model's configuration again."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """What `generate` gives.

    Attributes:
        token_ids: prompt and continuation, without its last token.
        logits: `[NEW_TOKENS, V]` float32, the first at the end of the prompt.
    """

    token_ids: list[int]
    logits: Tensor

    @property
    def first(self) -> int:
        """Position of the first row of logits."""
        return len(self.token_ids) - len(self.logits)


class SelfTest:
    """Knows what the unchanged model gives, and compares runners with it."""

    def __init__(self, loaded: LoadedModel, vocabulary_size: int) -> None:
        """Runs `generate`.

        Args:
            loaded: the model as it was loaded.
            vocabulary_size: ids that exist; 0 means one per row of the embedding.

        Raises:
            Refused: it does not run, or its logits are no numbers.
        """
        self._name = type(loaded.model).__name__
        self._dtype = loaded.dtype
        size = vocabulary_size or loaded.num_embedding_rows
        try:
            self._examples = _examples(loaded, size)
            self._short: list[Example] = []
            if has_windows(loaded.config):
                with short_windows(loaded.config):
                    self._short = _examples(loaded, size)
        except Exception as error:
            raise Refused(
                f"{self._name} does not generate in Hugging Face's own code: "
                f"{type(error).__name__}: {error}"
            ) from error
        for example in (*self._examples, *self._short):
            if not bool(example.logits.isfinite().all()):
                raise Refused(
                    f"{self._name} gives NaN or infinite logits as {self._dtype}, also in Hugging "
                    "Face's own code: its weights are damaged, or the type is too small for it."
                )

    def check(self, runner: Runner, config: PreTrainedConfig) -> None:
        """Compares a runner with `generate`.

        Args:
            runner: what is tried.
            config: the text configuration that its model reads.

        Raises:
            Refused: it differs, or does not run.
        """
        try:
            self._check_all(runner, self._examples)
            if self._short:
                with short_windows(config):
                    runner.read_windows()
                    self._check_all(runner, self._short)
                runner.read_windows()
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"it does not run: {type(error).__name__}: {error}") from error

    def _check_all(self, runner: Runner, examples: list[Example]) -> None:
        longest = examples[0]
        with Trial(runner) as trial:
            self._compare("in one batch", examples, trial.batch(examples))
        with Trial(runner) as trial:
            self._compare("after a fork", [longest], [trial.forked(longest)])
        with Trial(runner) as trial:
            self._compare("after a cut", [longest], [trial.cut(longest)])
        with Trial(runner) as trial:
            self._compare("after growth", [longest], [trial.grown(longest)])

    def _compare(self, when: str, examples: list[Example], results: list[Tensor]) -> None:
        scale = max(float(example.logits.abs().max()) for example in examples)
        worst = max(
            float((result.cpu()[:, : example.logits.shape[1]] - example.logits).abs().max())
            for result, example in zip(results, examples, strict=True)
        )
        if not worst <= TOLERANCE[self._dtype] * scale:
            raise Refused(
                f"it gives other logits {when} than in `generate` "
                f"(largest difference {worst:.3g} at a scale of {scale:.3g})"
            )


class Trial:
    """Sequences that a runner advances as it will in operation: at most `MIN_SLOTS`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._sequences: list[Sequence] = []

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *error: object) -> None:
        for seq in self._sequences:
            assert seq.slot is not None
            self._runner.cache.free(seq.slot, seq.num_written)

    def batch(self, examples: list[Example]) -> list[Tensor]:
        """Passes prompts in chunks and then token by token, all together."""
        sequences = [self.sequence(example.token_ids) for example in examples]
        firsts = [example.first for example in examples]
        for cut in (5, 2, 0):
            chunks = [
                (seq, first - cut - seq.num_cached)
                for seq, first in zip(sequences, firsts, strict=True)
            ]
            self._advance([(seq, length) for seq, length in chunks if length > 0])
        rows: list[list[Tensor]] = [[] for _ in sequences]
        for _ in range(NEW_TOKENS):
            for kept, row in zip(rows, self._advance([(s, 1) for s in sequences]), strict=True):
                kept.append(row)
        return [torch.stack(kept) for kept in rows]

    def forked(self, example: Example) -> Tensor:
        """Forks a sequence; the fork goes another way, and the original must not notice."""
        seq = self.sequence(example.token_ids)
        self._advance([(seq, example.first)])
        fork = self.sequence(example.token_ids)
        assert seq.slot is not None
        assert fork.slot is not None
        self._runner.cache.copy(seq.slot, fork.slot, seq.num_cached)
        fork.num_cached = seq.num_cached
        stray = self.sequence(example.token_ids[::-1])
        assert stray.slot is not None
        self._runner.cache.copy(seq.slot, stray.slot, seq.num_cached)
        stray.token_ids[: seq.num_cached] = example.token_ids[: seq.num_cached]
        stray.num_cached = seq.num_cached
        rows = []
        for index in range(NEW_TOKENS):
            whose = (fork, seq)[index % 2]
            other = (seq, fork)[index % 2]
            self._advance([(stray, 1)])
            rows.append(self._advance([(whose, 1)])[0])
            self._advance([(other, 1)])
        return torch.stack(rows)

    def cut(self, example: Example) -> Tensor:
        """Cuts a sequence that went another way, within its prompt and at its end."""
        seq = self.sequence(example.token_ids)
        kept = example.first // 2
        seq.token_ids[kept:] = example.token_ids[:-kept]
        self._advance([(seq, len(seq.token_ids))])
        seq.truncate(kept)
        seq.token_ids += example.token_ids[kept:]
        self._advance([(seq, example.first - kept)])
        rows = []
        for position in range(example.first, len(example.token_ids)):
            rows += self._advance([(seq, 1)])
            if position % 2:
                seq.truncate(position)
                seq.token_ids += example.token_ids[position:]
                rows[-1] = self._advance([(seq, 1)])[0]
        return torch.stack(rows)

    def grown(self, example: Example) -> Tensor:
        """Adds an id that is a copy of another, and takes it in its place."""
        vocabulary, copied = self._runner.vocabulary, example.token_ids[-1]
        new = vocabulary.size
        try:
            vocabulary.grow(1, [NewRow(new, "copy", generable=True, copy_token_id=copied)])
            token_ids = [new if token_id == copied else token_id for token_id in example.token_ids]
            seq = self.sequence(token_ids)
            self._advance([(seq, example.first)])
            logits = torch.stack([self._advance([(seq, 1)])[0] for _ in range(NEW_TOKENS)])
            # What the new id gets must be what the copied one would.
            logits[:, copied] = logits[:, new]
            return logits
        finally:
            vocabulary.shrink_to_base()

    def _advance(self, runs: list[tuple[Sequence, int]]) -> list[Tensor]:
        """Passes so many tokens of each sequence; returns the logits of the last, `[V]` each."""
        ordered = sorted(
            (Run(seq, length, (length - 1,)) for seq, length in runs if length > 0),
            key=lambda run: (run.length > 1, run.sequence.slot),
        )
        if not ordered:
            return []
        rows = self._runner.forward(ordered)
        found = {id(run.sequence): row for run, row in zip(ordered, rows, strict=True)}
        return [found[id(seq)] for seq, _ in runs]

    def sequence(self, token_ids: list[int]) -> Sequence:
        """Makes a sequence with a place of its own until the trial ends."""
        seq = Sequence(
            request_id=0,
            row=0,
            token_ids=list(token_ids),
            config=GenerationConfig(max_new_tokens=1),
            seed=0,
            vocabulary_size=self._runner.vocabulary.size,
            revision=0,
            max_length=len(token_ids),
        )
        seq.slot = self._runner.cache.allocate()
        self._sequences.append(seq)
        return seq


def _examples(loaded: LoadedModel, vocabulary_size: int) -> list[Example]:
    """Continues the prompts with `generate`, whatever the model's own defaults are."""
    model = loaded.model
    own, model.generation_config = model.generation_config, HFGenerationConfig()
    unused = list(range(vocabulary_size, loaded.num_embedding_rows))
    try:
        prompts = probe_prompts(vocabulary_size)
        return [_example(model, prompt, vocabulary_size, unused) for prompt in prompts]
    finally:
        model.generation_config = own


@torch.inference_mode()
def _example(model: Any, prompt: list[int], vocabulary_size: int, unused: list[int]) -> Example:
    device = placement.input_device(model.get_input_embeddings())
    output = model.generate(
        torch.tensor([prompt], device=device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64, device=device),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=unused or None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = torch.cat(output.logits)[:, :vocabulary_size].float().cpu()
    return Example(output.sequences[0, :-1].tolist(), logits)


def has_windows(config: Any) -> bool:
    """Whether some layer may see less than all earlier tokens."""
    return any(getattr(config, name, None) for name in WINDOW_FIELDS)


@contextlib.contextmanager
def short_windows(config: Any) -> Iterator[None]:
    """Makes the windows of a configuration shorter than the prompts that are tried."""
    before = {name: getattr(config, name, None) for name in WINDOW_FIELDS}
    try:
        for name, value in before.items():
            if value:
                setattr(config, name, SHORT_WINDOW)
        yield
    finally:
        for name, value in before.items():
            if value:
                setattr(config, name, value)


def probe_prompts(vocabulary_size: int) -> list[list[int]]:
    """Returns the prompts that are tried: fixed, of different length, the longest first."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(vocabulary_size, (length,), generator=generator).tolist()
        for length in PROMPT_LENGTHS
    ]
