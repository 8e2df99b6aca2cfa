"""Sequences of no request: a runner runs them to see whether its results are right."""

from typing import Self

from model_service.engine.run.runner import CachingRunner
from model_service.engine.sampling.choosing import Choosing
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.parameters import GenerationConfig

# Tokens that a trial appends to a sequence, at most.
ROOM = 8


class TrialSequences:
    """Sequences with places of a runner's cache, which are freed in the end."""

    def __init__(self, runner: CachingRunner) -> None:
        self._runner = runner
        self._sequences: list[Sequence] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for seq in self._sequences:
            assert seq.slot is not None
            self._runner.cache.free(seq.slot, seq.num_written)

    def sequence(self, token_ids: list[int]) -> Sequence:
        """Makes a sequence with a place of its own until the trial ends."""
        vocabulary, max_length = self._runner.vocabulary, len(token_ids) + ROOM
        config = GenerationConfig(max_new_tokens=1)
        seq = Sequence(
            row=0,
            token_ids=list(token_ids),
            max_length=max_length,
            choosing=Choosing(config, 0, vocabulary.revisions[0], tuple(token_ids), max_length),
            slot=self._runner.cache.allocate(),
        )
        self._sequences.append(seq)
        return seq
