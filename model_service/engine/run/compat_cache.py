"""Hugging Face's own caches, one per sequence: for models whose past does not fit slots.

A cache may hold keys and values, recurrent states or both; only Hugging Face's
code looks inside. It can be copied, and some can be cut; one that cannot is
dropped, and built again from the tokens.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)


@dataclass(slots=True)
class Past:
    """What a model keeps of a sequence.

    Attributes:
        arguments: the cache, by the name of the argument with which the model takes it; none
            for a model that keeps no past.
        length: tokens that it holds.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    length: int = 0

    def cut(self, length: int) -> bool:
        """Forgets the tokens from `length` on. Returns False, unchanged, where that cannot be."""
        caches = list(self.arguments.values())
        if length > self.length or not caches or not all(_can_be_cut(cache) for cache in caches):
            return False
        for cache in caches:
            cache.crop(length - self.length)
        self.length = length
        return True

    @property
    def has_windows(self) -> bool:
        """Whether some layer forgets tokens, so that a longer past may not be cut."""
        return any(any(cache.is_sliding) for cache in self.arguments.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = {tensor.data_ptr(): tensor for tensor in _tensors(self.arguments, set())}
        return sum(tensor.nbytes for tensor in tensors.values())


def _can_be_cut(cache: object) -> bool:
    """Whether cutting leaves exactly what was there before the tokens that are cut.

    A layer with a window has forgotten what a shorter sequence would see, once it is full.
    """
    if type(cache) is not DynamicCache:
        return False
    return all(
        type(layer) in (DynamicLayer, DummyLayer)
        or (
            type(layer) is DynamicSlidingWindowLayer
            and layer.get_seq_length() < layer.sliding_window
        )
        for layer in cache.layers
    )


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """Finds the tensors in a cache, whatever its class."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, seen)
    elif isinstance(value, Cache | CacheLayerMixin | LinearAttentionCacheLayerMixin):
        yield from _tensors(vars(value), seen)


class CompatCache:
    """One cache per sequence.

    Attributes:
        cuts_freely: whether every cache can be cut, as found out at start.
        bytes_per_token: bytes that a token takes, as measured at start.
    """

    def __init__(self, *, num_slots: int, new: Callable[[], dict[str, Any]]) -> None:
        """Makes room for caches.

        Args:
            num_slots: sequences that can be held.
            new: makes an empty cache, by the name of the argument with which the model takes it.
        """
        self.bytes_per_token = 1
        self.cuts_freely = False
        self._new = new
        self.num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._pasts: dict[int, Past] = {}

    @property
    def num_free_slots(self) -> int:
        """Places that no sequence holds."""
        return len(self._free)

    def allocate(self) -> int:
        """Takes the lowest free place."""
        self._free.sort(reverse=True)
        return self._free.pop()

    def free(self, slot: int, length: int) -> None:
        """Gives a place back and drops its cache."""
        self.drop(slot)
        self._free.append(slot)

    def drop(self, slot: int) -> None:
        """Forgets what a place holds: the tokens of its sequence pass again."""
        self._pasts.pop(slot, None)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copies a cache, all of it: the sequence says how many of its tokens count."""
        if length and source in self._pasts:
            self._pasts[target] = copy.deepcopy(self._pasts[source])

    def past(self, slot: int, length: int) -> Past:
        """Returns the cache of a sequence that counts `length` tokens as cached.

        It then holds these tokens, or none if it cannot be cut to them.
        """
        past = self._pasts.get(slot)
        if past is None or (past.length != length and not past.cut(length)):
            past = self._pasts[slot] = Past(self._new())
        return past
