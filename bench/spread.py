"""Repeated measurements as text: the middle, and how far they lie apart."""

import math
import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Returns `median (min to max)`."""
    shown = (statistics.median(values), min(values), max(values))
    middle, low, high = (f"{value:.{digits}f}" for value in shown)
    return f"{middle} ({low} to {high})"


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that a given share of the values does not exceed.

    Args:
        values: at least one.
        share: of the values, (0, 1].
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]
