"""Tells the control tokens of a chat template from those spelled in messages.

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

from tokenizer_service.control_tokens import Aliases

# Private-use planes: assigned to nothing, and neither letters nor white space.
_STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))


class NoStandInError(Exception):
    """The texts use every character that could stand in for another."""


class ControlTokenFinder:
    """Finds the control tokens of one revision in text."""

    def __init__(self, control_tokens: Iterable[str], aliases: Aliases) -> None:
        self._aliases = aliases
        contents = sorted(set(control_tokens))
        self.first_characters = sorted({content[0] for content in contents})
        pattern = _any_of(contents)
        self._token = re.compile(pattern)
        # A look-ahead, because one control token may begin inside of another.
        self._beginning = re.compile(f"(?={pattern}).", re.DOTALL)

    def stand_in(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """Replaces the first character of every control token."""
        return self._beginning.sub(lambda match: stand_ins[match[0]], text)

    def as_aliases(self, text: str) -> str:
        """Replaces every control token by its alias."""
        return self._token.sub(lambda match: self._aliases.of(match[0]), text)


class ChatText:
    """One call's messages on their way into a template, and its output on the way out."""

    def __init__(self, finder: ControlTokenFinder, texts: Iterable[str]) -> None:
        """Chooses stand-ins.

        Args:
            finder: the control tokens.
            texts: everything the output is made of, the template's source included.

        Raises:
            NoStandInError: the texts leave none.
        """
        self._finder = finder
        used = set().union(*texts)
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
        return rendered.translate(self._originals)

    def to_encode(self, rendered: str) -> str:
        """Returns the output with aliases where the template placed control tokens."""
        return self._finder.as_aliases(rendered).translate(self._originals)


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


def _any_of(contents: Iterable[str]) -> str:
    """Returns a pattern for any of some strings, the longest one first.

    It branches on characters, so its speed does not depend on how many there are.
    """
    root: dict[str, Any] = {}
    for content in contents:
        node = root
        for character in content:
            node = node.setdefault(character, {})
        node[""] = {}
    return _branches(root) if root else "(?!)"


def _branches(node: Mapping[str, Any]) -> str:
    branches = [re.escape(key) + _branches(child) for key, child in node.items() if key]
    if not branches:
        return ""
    if "" in node:
        return f"(?:{'|'.join(branches)})?"
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
