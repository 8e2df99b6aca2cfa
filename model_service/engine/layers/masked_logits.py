"""Logits of `-inf`: ids that a model masks, which are not missing numbers."""

import torch
from torch import Tensor


def comparable(result: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two rows of logits with 0 in place of what both mask.

    An id that both mask counts as equal, an id that only one masks as infinitely different.

    Args:
        result: `[.., V]` float32.
        expected: `[.., V]` float32.
    """
    masked = (result == -torch.inf) & (expected == -torch.inf)
    return result.masked_fill(masked, 0.0), expected.masked_fill(masked, 0.0)
