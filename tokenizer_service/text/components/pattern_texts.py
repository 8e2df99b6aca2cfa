r"""Texts that make a regular expression work hard, made of what it is made of.

A pattern that goes wrong does so where it may divide the same characters in many ways and
then fails: `(a+)+$` on `aaaa!`. So the characters that a pattern speaks of are repeated,
alone and in pairs, after each other and after the beginning of a match, before a character
that it cannot take. The pattern is only looked through for characters, not understood:
whatever the dialect, the wrong ones do no harm.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

# One of each kind, for patterns that name none.
_GENERAL = ("a", " ", "1", "!", "\n", "é", "東", "\u0301")
_STOP = "\0"
_ENDS = ("", _STOP, "!\n", "a")
_MAX_ALONE = 64
_MAX_PAIRED = 14  # with each other
_MAX_PLACES = 48
_MAX_HEAD = 16

_PROPERTY_SAMPLES = {
    **{"Lu": "A", "Lt": "ǅ", "Lm": "ʰ", "Lo": "東", "Han": "東", "Hiragana": "あ"},
    **{"Katakana": "ア", "Hangul": "한", "Cyrillic": "я", "Greek": "λ", "Arabic": "ع"},
    **{"M": "\u0301", "N": "1", "P": "!", "S": "$", "Z": " ", "C": "\u200b"},
}
_ESCAPE_SAMPLES = {
    **{"s": " \n", "S": "a", "d": "1", "D": "a", "w": "a_", "W": "!", "h": "a", "H": "!"},
    **{"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "R": "\n", "X": "a"},
    **dict.fromkeys("bBAzZGK", ""),
}
_ELEMENT = re.compile(
    r"""
    \(\?(?:[imxsa-]*[:)]|<?[=!]|>|<\w+>|\#[^)]*\))   # the beginning of a group with options
  | \{\d*,?\d*\}                                     # how often
  | \\[pP]\{\^?(?P<property>\w+)\}
  | \[:\^?(?P<posix>\w+):\]
  | \\x\{(?P<wide>[0-9a-fA-F]+)\} | \\x(?P<byte>[0-9a-fA-F]{1,2}) | \\u(?P<unit>[0-9a-fA-F]{4})
  | \\(?P<escape>.)
  | (?P<set>\[\^?\]?)
  | (?P<syntax>[()|*+?^$\].]|&&)
  | (?P<literal>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Repetition(NamedTuple):
    """A text that may be of any length."""

    head: str
    unit: str
    end: str

    def text(self, length: int) -> str:
        """Returns the text with about that many characters."""
        return self.head + self.unit * max(1, length // len(self.unit)) + self.end


def repetitions(pattern: str) -> Iterator[Repetition]:
    """Yields texts that may be hard for a pattern, a thousand or so."""
    elements = list(samples(pattern))
    words = re.findall(r"\w{2,16}", pattern)
    alone = list(dict.fromkeys([*"".join(elements), *words, *_GENERAL]))
    paired = list(dict.fromkeys([*(element[0] for element in elements), *_GENERAL]))
    sequence = "".join(element[0] for element in elements)
    # With all that a match needs, or the library may see at once that there is none.
    stop = f"{_STOP}\n{sequence[:_MAX_PLACES]}{_STOP}"
    for unit in _spread(alone, _MAX_ALONE):
        for end in (*_ENDS, stop):
            yield Repetition("", unit, end)
    for first, second in itertools.permutations(_spread(paired, _MAX_PAIRED), 2):
        yield Repetition("", first + second, "")
        yield Repetition("", first + second, stop)
        yield Repetition(first, second, stop)
    for length in range(4, min(len(sequence), _MAX_HEAD) + 1):
        yield Repetition("", sequence[:length], stop)
    for place in _spread(range(len(sequence)), _MAX_PLACES):
        head = sequence[max(0, place - _MAX_HEAD) : place]
        for length in (1, 2, 3):
            yield Repetition(head, sequence[place : place + length], stop)


def _spread(items: Sequence[_T], limit: int) -> Sequence[_T]:
    """Returns at most that many items, evenly spread."""
    step = -(-len(items) // limit) or 1
    return items[::step]


def samples(pattern: str) -> Iterator[str]:
    """Yields a few characters for each element of a pattern that takes some."""
    for match in _ELEMENT.finditer(pattern):
        taken = ""
        if name := match["property"] or match["posix"]:
            taken = _PROPERTY_SAMPLES.get(name) or _PROPERTY_SAMPLES.get(name[0], "a")
        elif code := match["wide"] or match["byte"] or match["unit"]:
            point = int(code, 16)
            taken = chr(point) if point < 0xD800 or 0xDFFF < point < 0x110000 else ""
        elif escape := match["escape"]:
            taken = _ESCAPE_SAMPLES.get(escape, escape)
        elif match["syntax"] == ".":
            taken = "a"
        elif literal := match["literal"]:
            taken = literal
        if taken:
            yield taken
