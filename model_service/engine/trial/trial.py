"""Sequences that a runner advances to see whether it is right, as it will in operation.

V: ids of revision 0.
"""

import torch
from torch import Tensor

from model_service.engine.run.trial_sequences import TrialSequences
from model_service.engine.sequences.run import Run
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.trial.oracle import NEW_TOKENS, Example
from model_service.protocol import NewRow


class Trial(TrialSequences):
    """Sequences that a runner advances as it will in operation: at most `MIN_SLOTS`.

    Every method returns the logits of `NEW_TOKENS` positions.
    """

    def batch(self, examples: list[Example]) -> list[Tensor]:
        """Passes prompts in chunks and then token by token, all together.

        Returns:
            Of each example `[NEW_TOKENS, V]` float32.
        """
        sequences = [self.sequence(example.prompt) for example in examples]
        for kept in (5, 2):
            chunks = [(seq, seq.num_pending - kept) for seq in sequences]
            self._forward([Run(seq, length, ()) for seq, length in chunks if length > 0])
        rows = [[row] for row in self._finish(*sequences)]
        for index in range(1, NEW_TOKENS):
            for seq, example in zip(sequences, examples, strict=True):
                seq.give([example.given(index)])
            for found, row in zip(rows, self._finish(*sequences), strict=True):
                found.append(row)
        return [torch.stack(found) for found in rows]

    def forked(self, example: Example) -> Tensor:
        """Forks a sequence twice; one fork takes other tokens, which must not affect the others.

        Returns:
            `[NEW_TOKENS, V]` float32.
        """
        seq = self.sequence(example.prompt[:-1])
        self._finish(seq)
        fork, stray = self._fork(seq), self._fork(seq)
        rows = []
        for index in range(NEW_TOKENS):
            for one in (seq, fork):
                one.give([example.given(index)])
                row = self._finish(one)[0]
            rows.append(row)
            seq, fork = fork, seq
            stray.give([example.token_ids[index]])
            self._finish(stray)
        return torch.stack(rows)

    def cut(self, example: Example) -> Tensor:
        """Cuts a sequence that had other tokens, within its prompt and at its end.

        Returns:
            `[NEW_TOKENS, V]` float32.
        """
        kept = len(example.prompt) // 2
        seq = self.sequence(example.prompt[:kept] + example.token_ids[: kept + 2])
        self._finish(seq)
        seq.truncate(kept)
        seq.give(example.prompt[kept:])
        rows = self._finish(seq)
        for index in range(1, NEW_TOKENS):
            seq.give([example.token_ids[0], example.given(index)])
            self._finish(seq)
            seq.truncate(len(seq.token_ids) - 2)
            seq.give([example.given(index)])
            rows += self._finish(seq)
        return torch.stack(rows)

    def grown(self, example: Example, *, given: bool) -> Tensor:
        """Adds an id that is a copy of another, which must then be as likely as that one.

        Args:
            example: the tokens.
            given: whether the new id also stands in the other's place among the tokens.

        Returns:
            `[NEW_TOKENS, V]` float32, with the new id's column in the place of the other's.
        """
        vocabulary, copied = self._runner.vocabulary, example.prompt[-1]
        new = vocabulary.size
        try:
            vocabulary.grow(1, [NewRow(new, "copy", generable=True, copy_token_id=copied)])
            used = {copied: new} if given else {}
            seq = self.sequence([used.get(token_id, token_id) for token_id in example.prompt])
            rows = self._finish(seq)
            for index in range(1, NEW_TOKENS):
                seq.give([used.get(example.given(index), example.given(index))])
                rows += self._finish(seq)
            logits = torch.stack(rows)
            logits[:, copied] = logits[:, new]
            return logits
        finally:
            vocabulary.shrink_to_base()

    def _finish(self, *sequences: Sequence) -> list[Tensor]:
        """Passes all pending tokens; returns the logits of each last one, `[V]`."""
        runs = [Run(seq, seq.num_pending, (seq.num_pending - 1,)) for seq in sequences]
        ordered, rows = self._forward(runs)
        found = {id(run.sequence): row for run, row in zip(ordered, rows, strict=True)}
        return [found[id(seq)] for seq in sequences]

    def _forward(self, runs: list[Run]) -> tuple[list[Run], Tensor]:
        """Runs a step, in the order that runners take."""
        ordered = sorted(runs, key=lambda run: (run.length > 1, run.sequence.slot))
        return ordered, self._runner.forward(ordered)

    def _fork(self, seq: Sequence) -> Sequence:
        fork = self.sequence(seq.token_ids)
        assert seq.slot is not None
        assert fork.slot is not None
        self._runner.cache.copy(seq.slot, fork.slot, seq.num_cached)
        fork.take_over(seq.num_cached)
        return fork
