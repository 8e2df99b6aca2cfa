"""What a sequence's tokens were, indexed for processors that look back.

Both indices follow a list that only grows at its end; cutting it requires new
ones.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


class TokenCounts:
    """How often each id occurs from one position on."""

    def __init__(self, start: int = 0) -> None:
        """Counts nothing yet; tokens before `start` never count."""
        self._next = start
        self._places: dict[int, int] = {}
        self._ids = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.int64)

    def update(self, token_ids: list[int]) -> tuple[Tensor, Tensor]:
        """Counts what is new, and returns all there is.

        Returns:
            The distinct ids in order of their first occurrence and how often each
            occurs, both `[M]` int64, valid until the next update.
        """
        for token_id in token_ids[self._next :]:
            place = self._places.setdefault(token_id, len(self._places))
            if place == len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._ids[place] = token_id
            self._counts[place] += 1
        self._next = max(self._next, len(token_ids))
        size = len(self._places)
        return torch.from_numpy(self._ids[:size]), torch.from_numpy(self._counts[:size])


class TokenPositions:
    """Where each id occurs."""

    def __init__(self) -> None:
        self._places: dict[int, list[int]] = {}
        self._tokens: list[int] = []

    def update(self, token_ids: list[int]) -> None:
        """Notes what is new."""
        for position in range(len(self._tokens), len(token_ids)):
            self._places.setdefault(token_ids[position], []).append(position)
        self._tokens += token_ids[len(self._tokens) :]

    def followers(self, run: list[int]) -> Iterable[int]:
        """Returns the ids that ever came right after a run; all ids for an empty one."""
        if not run:
            return self._places.keys()
        tokens = self._tokens
        ends = self._places.get(run[-1], ())
        return [
            tokens[end + 1]
            for end in ends
            if len(run) - 1 <= end < len(tokens) - 1 and tokens[end + 1 - len(run) : end + 1] == run
        ]
