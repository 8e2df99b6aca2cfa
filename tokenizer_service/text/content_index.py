"""Finds which of thousands of tokens a text contains.

Tokens are looked up by their first two characters and their lengths, so that the time depends on
the text, or on how many tokens begin differently, and hardly on how many there are.
"""

from collections.abc import Mapping


class ContentIndex:
    """An index of the contents of tokens. It never changes.

    Attributes:
        ids: the ids by content.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Indexes ids by content."""
        self.ids = dict(ids)
        self._joined = "\n".join(ids)
        lengths: dict[str, set[int]] = {}
        for content in ids:
            lengths.setdefault(content[:2], set()).add(len(content))
        self._lengths: dict[str, frozenset[int]] = {
            beginning: frozenset(found) for beginning, found in lengths.items()
        }

    def grown(self, ids: Mapping[str, int]) -> "ContentIndex":
        """Returns an index of these contents, too."""
        index = ContentIndex(ids)
        lengths = index._lengths
        for beginning in lengths.keys() & self._lengths.keys():
            lengths[beginning] |= self._lengths[beginning]
        index._lengths = self._lengths | lengths
        index.ids = self.ids | index.ids
        index._joined = f"{self._joined}\n{index._joined}"
        return index

    def contents_with(self, pattern: str) -> dict[int, str]:
        """Returns the contents that contain a text, by id."""
        if pattern not in self._joined:  # as nearly always, which is found out at once
            return {}
        return {i: content for content, i in self.ids.items() if pattern in content}

    def within(self, text: str) -> set[int]:
        """Returns the ids of the tokens that a short text contains."""
        found = set()
        for start, first in enumerate(text):
            for beginning in (first, text[start : start + 2]):
                for length in self._lengths.get(beginning, ()):
                    token_id = self.ids.get(text[start : start + length])
                    if token_id is not None:
                        found.add(token_id)
        return found

    def occurs_in(self, text: str) -> bool:
        """Whether a text, also a long one, contains any of the tokens."""
        for beginning, lengths in self._lengths.items():
            start = text.find(beginning)
            while start >= 0:
                if any(text[start : start + length] in self.ids for length in lengths):
                    return True
                start = text.find(beginning, start + 1)
        return False
