"""Sequences that a runner advances to see whether it is right, as it will in operation.

V: ids of revision 0.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

from model_service.engine.oracle import NEW_TOKENS, Example
from model_service.engine.sequence import Run, Sequence
from model_service.engine.sequence_cache import SequenceCache
from model_service.engine.vocabulary import Vocabulary
from model_service.generation import GenerationConfig
from model_service.messages import NewRow


class Runner(Protocol):
    """What runs a model.

    Attributes:
        vocabulary: rows and revisions; grown between steps.
    """

    vocabulary: Vocabulary

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
        sequences = [self._sequence(example.token_ids) for example in examples]
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
        seq = self._sequence(example.token_ids)
        self._advance([(seq, example.first)])
        fork = self._sequence(example.token_ids)
        assert seq.slot is not None
        assert fork.slot is not None
        self._runner.cache.copy(seq.slot, fork.slot, seq.num_cached)
        fork.num_cached = seq.num_cached
        stray = self._sequence(example.token_ids[::-1])
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
        seq = self._sequence(example.token_ids)
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
            seq = self._sequence(token_ids)
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

    def _sequence(self, token_ids: list[int]) -> Sequence:
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
