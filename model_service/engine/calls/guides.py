"""Guided sequences: rows that are drawn from two distributions at once.

The second distribution belongs to a guide, a separate row which continues the
negative prompt with the tokens that are drawn. Both rows take part in the steps
that all sequences share; a token is due once both have passed through the model.

R: rows of logits of a step, V: ids of the newest revision.
"""

import torch
from torch import Tensor

from model_service.engine.sampling.sampler import Draw


def pair(draws: list[Draw], logits: Tensor) -> tuple[list[Draw], Tensor]:
    """Keeps guided rows back until both of their distributions are there.

    Two rows mostly take the same steps. They come apart where the negative
    prompt is much shorter or longer, or where rows have to take turns: what is
    there first is kept.

    Args:
        draws: rows of the step from which a token is due.
        logits: `[R, V]` float32 of the step.

    Returns:
        The draws that are due, without the guides, and the logits that they point
        into: the rows of the step, followed by rows of earlier steps.
    """
    due: list[Draw] = []
    early: list[Tensor] = []
    rows = {id(draw.sequence): draw.row for draw in draws}
    for draw in draws:
        seq = draw.sequence.guided or draw.sequence
        guide = seq.guide
        if guide is None:
            due.append(draw)
            continue
        draw.sequence.next_logits = logits[draw.row].clone()
        if guide.next_logits is None or seq.next_logits is None:
            continue
        row = rows.get(id(seq))
        if row is None:
            row = len(logits) + len(early)
            early.append(seq.next_logits)
        due.append(Draw(seq, row, wants_scores=True))
    return due, torch.cat([logits, torch.stack(early)]) if early else logits
