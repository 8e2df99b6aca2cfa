"""Offsets of tokens in the unit the caller's language counts in."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

Unit = Literal["bytes", "code_points", "utf16"]
Spans = Sequence[tuple[int, int]]

_BEYOND_UTF16_UNIT = 0x10000


def convert(spans: Spans, text: str, unit: Unit) -> Spans:
    """Converts spans that count code points of `text` into another unit.

    One pass over the text, and one look-up per offset.
    """
    if unit == "code_points" or text.isascii():
        return spans
    width = _utf8_width if unit == "bytes" else _utf16_width
    prefix = [0, *accumulate(map(width, text))]
    return [(prefix[start], prefix[end]) for start, end in spans]


def _utf8_width(character: str) -> int:
    point = ord(character)
    return 1 + (point > 0x7F) + (point > 0x7FF) + (point >= _BEYOND_UTF16_UNIT)


def _utf16_width(character: str) -> int:
    return 2 if ord(character) >= _BEYOND_UTF16_UNIT else 1
