"""Classifier-free guidance: log-probabilities moved away from those after a negative prompt.

L: tokens so far, V: ids of the sequence's revision.
"""

from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor

from model_service.engine.sequences.sequence import Sequence


class GuidanceProcessor(LogitsProcessor):
    """Moves log-probabilities away from the guide's, as Hugging Face's class does.

    That one runs the model by itself, row by row; this one reads what the step
    has found out already.
    """

    def __init__(self, scale: float, guide: Sequence) -> None:
        """Takes the weight of the sequence against its guide, and the guide."""
        self._scale = scale
        self._guide = guide

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        assert self._guide.next_logits is not None, "A guide has no logits. This is a bug."
        logits = self._guide.next_logits[None, : scores.shape[-1]].to(scores.device)
        unconditional = logits.log_softmax(-1)
        return self._scale * (scores.log_softmax(-1) - unconditional) + unconditional
