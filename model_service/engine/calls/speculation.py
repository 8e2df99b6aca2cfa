"""Verifies guesses of tokens to come in the step of the token before them.

A run of one token takes drafts along, and the model returns the distribution
after each. The sampler chooses as always, one token at a time, from the row
that is due; when the token is the draft that stood there, the next row is due as
well, and otherwise the rows behind it are forgotten. So a draft never decides
anything but how many tokens a step gives.
"""

import logging
from dataclasses import replace

from model_service.engine.sampling.sampler import Choice
from model_service.engine.sequences.run import Due, Run
from model_service.engine.sequences.sequence import Sequence

logger = logging.getLogger(__name__)

# Tokens of decoding rows up to which a step takes hardly longer than with one: the weights, which
# every step reads once, are most of its work.
MAX_DECODE_TOKENS = 16


class Speculation:
    """Adds drafts to the runs of a step, and follows them through its choices.

    Attributes:
        num_drafted: drafts that were verified, ever.
        num_accepted: drafts that were right.
    """

    def __init__(self, *, takes_drafts: bool) -> None:
        """Starts with both counts at zero.

        Args:
            takes_drafts: whether the runner verifies drafts. Otherwise none are made.
        """
        self._takes_drafts = takes_drafts
        self.num_drafted = 0
        self.num_accepted = 0

    def extend(self, runs: list[Run]) -> list[Run]:
        """Lets rows that ask for it verify drafts, while few rows decode."""
        decoding = [run for run in runs if run.length == 1]
        wanting = [run for run in decoding if self._wants_drafts(run)]
        if not wanting:
            return runs
        share = (MAX_DECODE_TOKENS - len(decoding)) // len(wanting)
        extended = {id(run): _with_drafts(run, share) for run in wanting if share > 0}
        self.num_drafted += sum(len(run.drafts) for run in extended.values())
        return [extended.get(id(run), run) for run in runs]

    def _wants_drafts(self, run: Run) -> bool:
        return self._takes_drafts and run.sequence.lookup is not None and run.completes

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
                if entry.sequence.slot is not None:  # it has not ended
                    entry.sequence.advance(1)  # its keys and values are there already
                    behind.append(Due(entry.sequence, entry.row + 1, entry.drafts[1:]))
        return behind


def _with_drafts(run: Run, share: int) -> Run:
    """Adds as many drafts as a row's share, its wish and its place in the KV cache allow."""
    seq, config = run.sequence, run.sequence.choosing.config
    count = min(share, config.prompt_lookup_num_tokens, _room(seq))
    if count <= 0 or seq.lookup is None:
        return run
    try:
        drafts = seq.lookup.propose(seq.token_ids, config.max_matching_ngram_size, count)
    except Exception:  # a draft decides nothing, so the row continues without it
        logger.exception("A row is not drafted any more")
        seq.lookup = None
        return run
    return replace(run, targets=tuple(range(len(drafts) + 1)), drafts=drafts)


def _room(seq: Sequence) -> int:
    """Drafts that can matter: behind the last of them one more token is chosen."""
    return seq.choosing.length_limit - len(seq.token_ids) - 1
