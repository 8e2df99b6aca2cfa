"""What sequences do in a step: the tokens that pass through the model, and those that are due."""

from dataclasses import dataclass

from model_service.engine.sampling.choosing import Draw
from model_service.engine.sequences.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive pending tokens of one sequence that take part in one step.

    Attributes:
        sequence: whose tokens.
        length: how many, >= 1.
        targets: offsets within the run whose logits are wanted, ascending. Drafts count on.
        drafts: guesses of the tokens after those pending, to be verified; see `speculation.py`.
    """

    sequence: Sequence
    length: int
    targets: tuple[int, ...]
    drafts: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that pass through the model, drafts included."""
        return self.length + len(self.drafts)

    @property
    def completes(self) -> bool:
        """Whether no token is pending after the step."""
        return self.length == self.sequence.num_pending


@dataclass(frozen=True, slots=True)
class Due:
    """A sequence whose next token is to be chosen.

    Attributes:
        sequence: the sequence.
        row: its row of the step's logits.
        drafts: guesses of this token and of those behind it, whose rows follow.
    """

    sequence: Sequence
    row: int
    drafts: tuple[int, ...] = ()

    def draw(self) -> Draw:
        """Returns what the sampler has to know."""
        seq = self.sequence
        selection, guidance = seq.call.selection, seq.guidance
        return Draw(
            seq.choosing,
            seq.token_ids,
            self.row,
            seq.row,
            selection is not None and selection.scores,
            None if guidance is None else guidance.guide_logits,
            wants_row=selection is not None,
        )
