"""Logits of `-inf`: ids that a model masks, which is no missing number."""

import torch
from torch import Tensor


def comparable(result: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two rows of logits with 0 in place of what both mask.

    A mask on which they agree is no difference, and one on which they do not is infinite.

    Args:
        result: `[.., V]`.
        expected: `[.., V]`.
    """
    masked = (result == -torch.inf) & (expected == -torch.inf)
    return result.masked_fill(masked, 0.0), expected.masked_fill(masked, 0.0)
