"""Drafts by an assistant: a smaller model with the same vocabulary, which runs ahead.

It sees the tokens of a sequence and chooses the next ones from its own logits, with
the sequence's temperature, top-k, top-p and min-p and the very noise that the
sequence's own draw will use, so that both mostly agree where the models do. A draft
decides nothing (see `speculation.py`), so nothing else of a request matters here,
and a sequence for which the assistant fails goes on without it.
"""

import logging
from dataclasses import dataclass, field

import msgspec

from model_service.engine.run.model_runner import ModelRunner, order
from model_service.engine.sampling import sampler
from model_service.engine.sampling.choosing import Choosing, Draw
from model_service.engine.sequences.acceptance import Acceptance
from model_service.engine.sequences.run import Run
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.parameters import GenerationConfig

logger = logging.getLogger(__name__)

# Tokens of prompts that the assistant reads in one step of the model.
CATCH_UP_TOKENS = 256

# What a draft is taken to add to the time of the model's step.
COST = 0.15

# How often its next draft is right, before a sequence has shown how often it is.
EXPECTED = 0.7

# Stands for ids that the assistant has no row for. It never drafts them.
UNKNOWN = 0

# What of a configuration changes the odds of tokens, whatever came before.
WARPERS = ("do_sample", "temperature", "top_k", "top_p", "min_p", "min_tokens_to_keep")


@dataclass(slots=True, eq=False)
class Twin:
    """The assistant's own view of a sequence.

    Attributes:
        ahead: the sequence's tokens and the drafts behind them, with a slot of the assistant's.
        num_tokens: tokens of the sequence, without drafts.
        acceptance: how often drafts were right.
    """

    ahead: Sequence
    num_tokens: int = 0
    acceptance: Acceptance = field(default_factory=lambda: Acceptance(EXPECTED, COST))

    def follow(self, new: list[int]) -> None:
        """Takes the tokens that the sequence has got since in place of the drafts."""
        drafts, same = self.ahead.token_ids[self.num_tokens :], 0
        for draft, token_id in zip(drafts, new, strict=False):
            self.acceptance.note(draft == token_id)
            if draft != token_id:
                break
            same += 1
        self.ahead.truncate(self.num_tokens + same)
        self.ahead.give(new[same:])
        self.num_tokens += len(new)

    @property
    def num_drafts(self) -> int:
        """Drafts behind the tokens."""
        return len(self.ahead.token_ids) - self.num_tokens

    def draw(self, row: int) -> Draw:
        """Returns what the sampler has to know for the next draft."""
        return Draw(self.ahead.choosing, self.ahead.token_ids, row)


class Assistant:
    """Runs ahead of sequences that decode."""

    def __init__(self, runner: ModelRunner, context_length: int) -> None:
        """Takes over a model that was tried.

        Args:
            runner: its runner.
            context_length: most tokens that it can read.
        """
        self._runner = runner
        self._context_length = context_length
        self._twins: dict[Sequence, Twin | None] = {}  # None: it failed for this sequence

    @property
    def bytes_per_token(self) -> int:
        """Bytes of KV cache that a token of a sequence takes here."""
        return self._runner.cache.bytes_per_token

    def tidy(self) -> None:
        """Forgets sequences that have left their slots. Called at every step."""
        for seq in [seq for seq in self._twins if seq.slot is None]:
            self._free(self._twins.pop(seq))
        self._runner.graphs.advance()

    def draft(self, wanted: dict[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Guesses the next tokens of sequences.

        Args:
            wanted: how many at most, for each sequence.

        Returns:
            The drafts of those that have some.
        """
        try:
            return self._draft(wanted)
        except Exception:  # a draft decides nothing, so the sequences continue without
            logger.exception("The assistant failed: %d rows go on without it", len(wanted))
            for seq in wanted:
                self._free(self._twins.get(seq))
                self._twins[seq] = None
            return {}

    def _draft(self, wanted: dict[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        runs: list[Run] = []
        counts: dict[Sequence, int] = {}  # by what runs ahead
        twins: dict[Sequence, Twin] = {}
        budget = CATCH_UP_TOKENS
        for seq, most in wanted.items():
            twin = self._twin(seq)
            room = self._context_length - len(seq.token_ids)
            if twin is None or room <= 0:
                continue
            twin.follow([self._known(token_id) for token_id in seq.token_ids[twin.num_tokens :]])
            ahead, count = twin.ahead, twin.acceptance.worthwhile(min(most, room))
            length = min(ahead.num_pending, budget)
            if not length or not count:
                continue
            budget -= length
            completes = length == ahead.num_pending
            runs.append(Run(ahead, length, (length - 1,) if completes else ()))
            if completes:
                counts[ahead], twins[ahead] = count, twin
        while runs:
            runs = self._advance(runs, counts, twins)
        return {
            seq: tuple(twin.ahead.token_ids[twin.num_tokens :])
            for seq in wanted
            if (twin := self._twins[seq]) is not None and twin.num_drafts
        }

    def _advance(
        self, runs: list[Run], counts: dict[Sequence, int], twins: dict[Sequence, Twin]
    ) -> list[Run]:
        """Makes a step, and returns the runs of the next one."""
        runs = order(runs)
        for run in runs:  # also where the step fails midway
            run.sequence.note_written(run.num_tokens)
        logits = self._runner.forward(runs)
        due = [run.sequence for run in runs if run.targets]
        choices = sampler.choose(logits, [twins[seq].draw(row) for row, seq in enumerate(due)])
        following = []
        for seq, choice in zip(due, choices, strict=True):
            if choice.token_id is None:
                continue
            seq.give([choice.token_id])
            if twins[seq].num_drafts < counts[seq]:
                following.append(Run(seq, 1, (0,)))
        return following

    def _known(self, token_id: int) -> int:
        return token_id if token_id < self._runner.vocabulary.size else UNKNOWN

    def _twin(self, seq: Sequence) -> Twin | None:
        if seq not in self._twins:
            given = seq.choosing.config
            options = {name: getattr(given, name) for name in WARPERS}
            config = msgspec.structs.replace(GenerationConfig(max_new_tokens=1), **options)
            revision = self._runner.vocabulary.revisions[0]
            limit = self._context_length
            choosing = Choosing(config, seq.choosing.seed, revision, (), limit)
            ahead = Sequence(0, [], limit, choosing, slot=self._runner.cache.allocate())
            self._twins[seq] = Twin(ahead)
        return self._twins[seq]

    def _free(self, twin: Twin | None) -> None:
        if twin is not None:
            assert twin.ahead.slot is not None
            self._runner.cache.free(twin.ahead.slot, twin.ahead.num_written)
