"""Ranges of numbers, as the fields and the arguments of requests have them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from msgspec import Meta


@dataclass(frozen=True, slots=True)
class Number:
    """An interval of numbers. NaN is in none.

    Attributes:
        low: its lower end.
        high: its upper end.
        above_low: whether the lower end itself is not in it.
        below_high: whether the upper end itself is not in it.
        whole: whether its numbers are integers.
        hint: what else to say where another number is given.
    """

    low: float
    high: float
    above_low: bool = False
    below_high: bool = False
    whole: bool = False
    hint: str = ""

    def __contains__(self, value: float) -> bool:
        """Says whether a value is inside."""
        if math.isnan(value) or value < self.low or value > self.high:
            return False
        return not (
            (self.above_low and value == self.low) or (self.below_high and value == self.high)
        )

    def __str__(self) -> str:
        """Writes the interval as the schema does."""
        left = "(" if self.above_low else "["
        right = f"{self.high:g}" + (")" if self.below_high else "]")
        if self.whole and self.high >= 2**31 - 1:
            right = f"2^{int(self.high).bit_length()})"
        hint = f"; {self.hint}" if self.hint else ""
        return f"{left}{self.low:g}, {right}{hint}"

    @property
    def meta(self) -> Meta:
        """The interval as the constraint of a typed field."""
        ends: dict[str, Any] = {
            "gt" if self.above_low else "ge": self.low,
            "lt" if self.below_high else "le": self.high,
        }
        return Meta(**ends)

    def reaching(self, low: float) -> "Number":
        """Returns the interval down to a number, included."""
        return replace(self, low=low, above_low=False) if low <= self.low else self


def whole(low: int = 0, high: int = 2**31 - 1, *, hint: str = "") -> Number:
    """Returns an interval of integers with both of its ends."""
    return Number(low, high, whole=True, hint=hint)


def as_written(value: float) -> float:
    """Returns the shortest decimal that is the same float32.

    The wire carries float32, so 0.9 arrives as 0.899999976. Undoing that gives
    Hugging Face's results for the number that was meant, and makes an echoed
    configuration equal to the one it came from.
    """
    return float(str(np.float32(value)))
