"""Finds which of thousands of tokens a text contains.

A text is looked up piece by piece in a table of the tokens, so that the time depends on the
text and not on how many tokens there are.
"""

from collections.abc import Mapping


class ContentIndex:
    """An index of the contents of tokens. It never changes.

    Attributes:
        joined: all contents in one text, which a search runs through at once.
    """

    def __init__(self, contents: Mapping[int, str]) -> None:
        """Indexes contents by id."""
        self.joined = "\n".join(contents.values())
        self._ids = {content: token_id for token_id, content in contents.items()}
        lengths: dict[str, set[int]] = {}
        for content in contents.values():
            lengths.setdefault(content[:2], set()).add(len(content))
        self._lengths = lengths

    def within(self, text: str) -> set[int]:
        """Returns the ids of the tokens that a text contains."""
        found = set()
        for start, first in enumerate(text):
            for beginning in (first, text[start : start + 2]):
                for length in self._lengths.get(beginning, ()):
                    token_id = self._ids.get(text[start : start + length])
                    if token_id is not None:
                        found.add(token_id)
        return found
