"""Draws as `torch.manual_seed(seed); model.generate(do_sample=True)` makes them.

V: ids of the sequence's revision, N: scores of a draw, V of them for each beam.
"""

from typing import Self

import torch
from torch import Tensor

KEEP_EVERY = 16
"""Draws between two states that are kept, 5 kB each: what going back may have to repeat."""


class TorchDraws:
    """The draws of one sequence, or of one search, in any order.

    Alone in its batch, a sequence or a search makes one draw per token from torch's generator
    on the CPU. So the token at an index is drawn with the generator in its state
    after that number of draws, whatever they gave: a row that is cut, copied or
    asked again is drawn as if nothing had happened.
    """

    def __init__(self, seed: int) -> None:
        """Takes the seed, [0, 2^63); torch reads its lower 32 bits."""
        self._generator = torch.Generator().manual_seed(seed)
        self._num_drawn = 0
        self._states: dict[int, Tensor] = {}
        self._keep()

    def draw(self, scores: Tensor, index: int) -> int:
        """Draws the token at an index of the continuation.

        Args:
            scores: `[V]` float32 after processors and warpers, with something left.
            index: tokens of the continuation before it.
        """
        return int(self.draw_several(scores, 1, index))

    def draw_several(self, scores: Tensor, count: int, index: int) -> Tensor:
        """Draws places among scores, without replacement.

        Args:
            scores: `[N]` float32, none `inf`, with something left. N is at most 2^24, and the
                same in every call.
            count: how many, at most N. Where fewer are possible, others follow them.
            index: draws before it.

        Returns:
            `[count]` int64, in the order of the draws.
        """
        self._seek(index, len(scores))
        probs = scores.cpu()[None].softmax(-1)
        drawn = torch.multinomial(probs, count, generator=self._generator)[0]
        self._advance()
        return drawn

    def copy(self) -> Self:
        """Returns the draws of a copy of the sequence."""
        twin = type(self)(0)
        twin._generator.set_state(self._generator.get_state())
        twin._num_drawn = self._num_drawn
        twin._states = dict(self._states)
        return twin

    def _seek(self, index: int, size: int) -> None:
        """Puts the generator where it is after `index` draws among `size` scores."""
        if index != self._num_drawn:
            self._num_drawn = max(kept for kept in self._states if kept <= index)
            self._generator.set_state(self._states[self._num_drawn])
        while self._num_drawn < index:
            torch.empty(1, size).exponential_(generator=self._generator)  # as `multinomial` does
            self._advance()

    def _advance(self) -> None:
        self._num_drawn += 1
        self._keep()

    def _keep(self) -> None:
        """Keeps every `KEEP_EVERY`-th state and the two newest, as the last draw often repeats."""
        self._states[self._num_drawn] = self._generator.get_state()
        old = self._num_drawn - 2
        if old % KEEP_EVERY:
            self._states.pop(old, None)
