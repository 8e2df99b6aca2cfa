"""Classifier-free guidance: log-probabilities moved away from the ones after a negative prompt.

V: ids of the sequence's revision.
"""

from torch import Tensor


def guided(scores: Tensor, guide_logits: Tensor, scale: float) -> Tensor:
    """Moves log-probabilities away from the guide's, as Hugging Face's class does.

    That one runs the model by itself, row by row; this one reads what the step
    has found out already.

    Args:
        scores: `[1, V]` float32.
        guide_logits: `[W]` float32 after the negative prompt, `W` at least V.
        scale: weight of the sequence against its guide.

    Returns:
        `[1, V]` float32.
    """
    logits = guide_logits[None, : scores.shape[-1]].to(scores.device)
    unconditional = logits.log_softmax(-1)
    return scale * (scores.log_softmax(-1) - unconditional) + unconditional
