"""Tells the control tokens of a chat template from control tokens spelled in messages.

A template writes `<|im_end|>` to end a turn, and a message that contains
`<|im_end|>` must not. Before rendering, the first character of every control token
in what the caller sent is replaced by a stand-in that the caller did not use; after
it, whatever still looks like a control token was written by the template. Stand-ins
are single characters, so templates may measure, strip and slice messages as before.

A template that puts a control token together from pieces, one of them from a
message (`'<|' + message['role'] + '|>'`), is beyond this: roles are checked instead.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rpc.slices import slices

# Private-use planes: assigned to nothing, and neither letters nor white space.
_STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))


class NoStandInError(Exception):
    """The texts use every character that could stand in for another."""


class ControlTokenFinder:
    """Finds the control tokens of one revision in text.

    Quickly made, as every revision needs one: a token is looked up by its first two
    characters and its length, so time to find one hardly depends on how many there are.
    """

    def __init__(self, aliases: Mapping[str, str]) -> None:
        """Prepares to find control tokens.

        Args:
            aliases: the alias of each control token.
        """
        self._aliases = dict(aliases)
        self.first_characters = sorted({content[0] for content in aliases})
        lengths: dict[str, set[int]] = {}
        for content in aliases:
            lengths.setdefault(content[:2], set()).add(len(content))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        any_first = "".join(map(re.escape, self.first_characters))
        self._first = re.compile(f"[{any_first}]" if any_first else "(?!)")

    def stand_in(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """Replaces the first character of every control token, also inside of another."""

        def replacement(match: re.Match[str]) -> str:
            first = match[0]
            return first if self._at(text, match.start()) is None else stand_ins[first]

        return self._first.sub(replacement, text)

    def as_aliases(self, text: str) -> str:
        """Replaces every control token, the longest at each place, by its alias."""
        parts = []
        end = 0
        for match in self._first.finditer(text):
            start = match.start()
            if start >= end and (token := self._at(text, start)) is not None:
                parts += [text[end:start], self._aliases[token]]
                end = start + len(token)
        return "".join([*parts, text[end:]])

    def _at(self, text: str, start: int) -> str | None:
        """Returns the longest control token that begins at a place."""
        for beginning in (text[start : start + 2], text[start]):
            for length in self._lengths.get(beginning, ()):
                if (token := text[start : start + length]) in self._aliases:
                    return token
        return None


class ChatText:
    """One call's messages before they enter a template, and the output of the template."""

    def __init__(self, finder: ControlTokenFinder, texts: Iterable[str]) -> None:
        """Chooses stand-ins.

        Args:
            finder: the control tokens.
            texts: everything the output is made of, the template's source included.

        Raises:
            NoStandInError: the texts leave none.
        """
        self._finder = finder
        used: set[str] = set()
        for text in texts:
            for some in slices(text):
                used.update(some)
        free = (chr(point) for point in _STAND_INS if chr(point) not in used)
        try:
            self._stand_ins = {first: next(free) for first in finder.first_characters}
        except StopIteration:
            raise NoStandInError from None
        self._originals = str.maketrans({new: old for old, new in self._stand_ins.items()})

    def protect(self, value: Any) -> Any:
        """Returns a JSON value in which no string, key or value, has a control token."""
        match value:
            case str():
                return self._finder.stand_in(value, self._stand_ins)
            case list():
                return [self.protect(item) for item in value]
            case dict():
                return {self.protect(key): self.protect(item) for key, item in value.items()}
        return value

    def to_display(self, rendered: str) -> str:
        """Returns the output as people should see it."""
        return self._restored(rendered)

    def to_encode(self, rendered: str) -> str:
        """Returns the output with aliases where the template placed control tokens."""
        return self._restored(self._finder.as_aliases(rendered))

    def _restored(self, text: str) -> str:
        return "".join(some.translate(self._originals) for some in slices(text))


def strings(value: Any) -> Iterable[str]:
    """Yields every string in a JSON value, keys included."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings(item)
        case dict():
            for key, item in value.items():
                yield key
                yield from strings(item)
