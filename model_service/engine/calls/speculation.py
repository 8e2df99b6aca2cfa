"""Verifies guesses of tokens to come in the step of the token before them.

A run of one token takes drafts along, and the model returns the distribution
after each. The sampler chooses as always, one token at a time, from the row
that is due; when the token is the draft that stood there, the next row is due as
well, and otherwise the rows behind it are forgotten. So a draft never decides
anything but how many tokens a step gives.
"""

import logging
from dataclasses import replace
from typing import Protocol

from model_service.engine.sampling.sampler import Choice
from model_service.engine.sequences.run import Due, Run
from model_service.engine.sequences.sequence import Sequence

logger = logging.getLogger(__name__)

# Tokens of decoding rows up to which a step takes hardly longer than with one: the weights, which
# every step reads once, are most of its work.
MAX_DECODE_TOKENS = 16


class Drafter(Protocol):
    """A model that runs ahead of sequences."""

    def tidy(self) -> None:
        """Forgets sequences that have left their slots. Called at every step."""
        ...

    def draft(self, wanted: dict[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Guesses the next tokens of sequences, at most so many of each. Never fails."""
        ...


class Speculation:
    """Adds drafts to the runs of a step, and follows them through its choices.

    Attributes:
        num_drafted: drafts that were verified, ever.
        num_accepted: drafts that were right.
        num_assistant_drafted: those of the drafts that an assistant made.
        num_assistant_accepted: those of them that were right.
    """

    def __init__(self, *, takes_drafts: bool, assistant: Drafter | None = None) -> None:
        """Starts with all counts at zero.

        Args:
            takes_drafts: whether the runner verifies drafts. Otherwise none are made.
            assistant: guesses where a sequence itself gives none.
        """
        self._takes_drafts = takes_drafts
        self._assistant = assistant
        self._assisted: set[Sequence] = set()  # in the present step
        self.num_drafted = 0
        self.num_accepted = 0
        self.num_assistant_drafted = 0
        self.num_assistant_accepted = 0

    def extend(self, runs: list[Run]) -> list[Run]:
        """Lets rows that may have drafts verify some, while few rows decode."""
        self._assisted.clear()
        if self._assistant is not None:
            self._assistant.tidy()
        decoding = [run for run in runs if run.length == 1]
        wanting = [run for run in decoding if self._wants_drafts(run)]
        if not wanting:
            return runs
        share = (MAX_DECODE_TOKENS - len(decoding)) // len(wanting)
        room = {run.sequence: min(share, _room(run.sequence)) for run in wanting}
        room = {seq: count for seq, count in room.items() if count > 0}
        drafts = {seq: _looked_up(seq, count) for seq, count in room.items()}
        if self._assistant is not None:
            without = {seq: room[seq] for seq, found in drafts.items() if not found}
            made = self._assistant.draft(without)
            self._assisted.update(made)
            self.num_assistant_drafted += sum(map(len, made.values()))
            drafts |= made
        self.num_drafted += sum(map(len, drafts.values()))
        return [_with_drafts(run, drafts.get(run.sequence, ())) for run in runs]

    def _wants_drafts(self, run: Run) -> bool:
        seq = run.sequence
        takes = seq.lookup is not None or (self._assistant is not None and seq.takes_drafts)
        return self._takes_drafts and takes and run.completes

    def follow(self, due: list[Due], choices: list[Choice]) -> list[Due]:
        """Returns what is due after some choices: what is behind a draft that was right.

        Args:
            due: what was due.
            choices: for each; the owners have them.
        """
        behind = []
        for entry, choice in zip(due, choices, strict=True):
            if entry.drafts and choice.token_id == entry.drafts[0]:
                self.num_accepted += 1
                self.num_assistant_accepted += entry.sequence in self._assisted
                if entry.sequence.slot is not None:  # it has not ended
                    entry.sequence.advance(1)  # its keys and values are there already
                    behind.append(Due(entry.sequence, entry.row + 1, entry.drafts[1:]))
        return behind


def _with_drafts(run: Run, drafts: tuple[int, ...]) -> Run:
    if not drafts:
        return run
    return replace(run, targets=tuple(range(len(drafts) + 1)), drafts=drafts)


def _looked_up(seq: Sequence, most: int) -> tuple[int, ...]:
    """Guesses from the sequence itself, if its call asked for that."""
    if seq.lookup is None:
        return ()
    config = seq.choosing.config
    count = min(most, config.prompt_lookup_num_tokens)
    try:
        return seq.lookup.propose(seq.token_ids, config.max_matching_ngram_size, count)
    except Exception:  # a draft decides nothing, so the row continues without it
        logger.exception("A row is not drafted any more")
        seq.lookup = None
        return ()


def _room(seq: Sequence) -> int:
    """Drafts that can matter: behind the last of them one more token is chosen."""
    return seq.choosing.length_limit - len(seq.token_ids) - 1
