"""Guided sequences: rows that are drawn from two distributions at once.

The second distribution belongs to a guide, a separate row which continues the
negative prompt with the tokens that are drawn. Both rows take part in the steps
that all sequences share; a token is due once both have passed through the model.

R: rows of logits of a step, V: ids of the newest revision.
"""

import torch
from torch import Tensor

from model_service.engine.sequences.run import Due


def pair(due: list[Due], logits: Tensor) -> tuple[list[Due], Tensor]:
    """Keeps guided rows back until both of their distributions are there.

    Two rows mostly take the same steps. They come apart where the negative
    prompt is much shorter or longer, or where rows have to take turns: what is
    there first is kept.

    Args:
        due: sequences of the step of which a token is due, guides among them.
        logits: `[R, V]` float32 of the step.

    Returns:
        The sequences that a token can be chosen for, without the guides, and the logits that
        they point into: the rows of the step, followed by rows of earlier steps.
    """
    ready: list[Due] = []
    early: list[Tensor] = []
    rows = {id(entry.sequence): entry.row for entry in due}
    for entry in due:
        guidance = entry.sequence.guidance
        if guidance is None:
            ready.append(entry)
            continue
        guidance.arrive(entry.sequence, logits[entry.row].clone())
        if guidance.guide_logits is None or guidance.guided_logits is None:
            continue
        row = rows.get(id(guidance.guided))
        if row is None:
            row = len(logits) + len(early)
            early.append(guidance.guided_logits)
        ready.append(Due(guidance.guided, row))
    return ready, torch.cat([logits, torch.stack(early)]) if early else logits
