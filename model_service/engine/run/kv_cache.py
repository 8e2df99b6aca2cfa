"""Where keys and values live: one slot per sequence, dense, paged in by the operating system.

A slot is a row of `[slots, max_length, K, D]` per layer. Address space is
reserved for every slot at full length, but a page costs memory only once it is
written and is given back when the slot is freed; the scheduler admits by tokens,
so memory stays within its budget. A freed slot reads as zeros: nothing of one
request, not even a NaN, can reach the next.

K: key-value heads, D: head size, T: tokens of the step.
"""

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

PAGE_BYTES = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Sizes of one layer's keys and values."""

    num_heads: int
    key_size: int
    value_size: int


class SlotTensor:
    """Keys or values of one layer, `[slots, max_length, K, D]`."""

    def __init__(
        self,
        num_slots: int,
        max_length: int,
        num_heads: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_slots, max_length, num_heads, head_size)
        self._memory: mmap.mmap | None = None
        if device.type == "cpu":
            num_bytes = num_slots * max_length * num_heads * head_size * dtype.itemsize
            self._memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a 2 MiB page would back 100 tokens with 5,000
                self._memory.madvise(mmap.MADV_NOHUGEPAGE)
            self.data = torch.frombuffer(self._memory, dtype=dtype).view(shape)
        else:
            self.data = torch.zeros(shape, dtype=dtype, device=device)

    def clear(self, slot: int, length: int) -> None:
        """Makes the first `length` tokens of a slot zeros and gives their pages back."""
        used = self.data[slot, :length]
        if self._memory is None:
            used.zero_()
            return
        start = self.data[slot].storage_offset() * self.data.itemsize
        end = start + used.numel() * self.data.itemsize
        first = -(-start // PAGE_BYTES) * PAGE_BYTES
        last = end // PAGE_BYTES * PAGE_BYTES
        if first >= last:  # less than a page
            used.zero_()
            return
        flat = self.data.view(-1)
        flat[start // self.data.itemsize : first // self.data.itemsize].zero_()
        flat[last // self.data.itemsize : end // self.data.itemsize].zero_()
        self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class SlotLayer(CacheLayerMixin):
    """One layer's slots, in the place where the modeling code expects a cache layer.

    Its `update` writes the step's keys and values to their slots and returns
    them unchanged: the attention function reads the slots itself. Lengths are
    the scheduler's business, so the layer has none to report.
    """

    is_sliding = False

    def __init__(self, store: "KVCache") -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Hugging Face's is unannotated
        self._store = store
        self.k: SlotTensor | None = None
        self.v: SlotTensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates slots where the keys are. Keys and values: `[1, K, T, D]`, any dtype."""
        store = self._store
        self.k = store.tensor(key_states)
        self.v = store.tensor(value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes keys and values, `[1, K, T, D]` in any dtype, to the step's places."""
        if self.k is None or self.v is None:
            self.lazy_initialization(key_states, value_states)
        assert self.k is not None
        assert self.v is not None
        slots, positions = self._store.places(key_states.device)
        self.k.data.index_put_((slots, positions), key_states[0].transpose(0, 1))
        self.v.data.index_put_((slots, positions), value_states[0].transpose(0, 1))
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Refuses: a step holds tokens of many sequences, so no single mask exists.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the model builds a mask from the length of its cache")

    def get_seq_length(self) -> int:
        """Returns a length without meaning: a step holds tokens of many sequences."""
        return self._store.claimed_length

    def get_max_length(self) -> int:
        """Returns -1: the scheduler bounds lengths."""
        return -1


class KVCache(Cache):
    """All layers' slots.

    Attributes:
        num_slots: sequences that can be held.
        max_length: tokens of a slot.
        dtype: of keys and values.
        slot_layers: the layers, by index.
        claimed_length: what a model is told that asks for the length of its cache. No result may
            depend on it, which is tried at start.
        cuts_freely: True: what lies beyond a cut is never read, and written over.
    """

    cuts_freely = True

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        max_length: int,
        dtype: torch.dtype,
        num_spare: int = 0,
    ) -> None:
        """Describes slots; a layer allocates its own when it first runs.

        Args:
            num_layers: of the model.
            num_slots: sequences that can be held.
            max_length: tokens of a slot.
            dtype: of keys and values.
            num_spare: additional slots, for trials between steps.
        """
        self.num_slots = num_slots
        self.max_length = max_length
        self.claimed_length = 0
        self.dtype = dtype
        self._places: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._here: tuple[Tensor, Tensor] | None = None
        self._num_rows = num_slots + num_spare
        self._free = list(range(self._num_rows - 1, -1, -1))
        self.slot_layers = [SlotLayer(self) for _ in range(num_layers)]
        super().__init__(layers=[*self.slot_layers])

    def tensor(self, states: Tensor) -> SlotTensor:
        """Allocates slots in the cache's dtype for states `[1, K, T, D]`, on their device."""
        return SlotTensor(
            self._num_rows,
            self.max_length,
            states.shape[1],
            states.shape[3],
            self.dtype,
            states.device,
        )

    @property
    def num_free_slots(self) -> int:
        """Slots that no sequence holds."""
        return len(self._free)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a token takes over all layers; 0 before the first step."""
        total = 0
        for layer in self.slot_layers:
            for part in (layer.k, layer.v):
                if part is not None:
                    total += part.data[0, 0].numel() * part.data.itemsize
        return total

    def allocate(self) -> int:
        """Takes the lowest free slot, so that running sequences lie close together."""
        self._free.sort(reverse=True)
        return self._free.pop()

    @torch.inference_mode()
    def free(self, slot: int, length: int) -> None:
        """Gives a slot back and forgets its first `length` tokens."""
        for layer in self.slot_layers:
            for part in (layer.k, layer.v):
                if part is not None:
                    part.clear(slot, length)
        self._free.append(slot)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a slot to another, in all layers."""
        for layer in self.slot_layers:
            for part in (layer.k, layer.v):
                if part is not None:
                    part.data[target, :length] = part.data[source, :length]

    def set_places(self, slots: Tensor, positions: Tensor) -> None:
        """Says where the next step's keys and values go: slot and position, `[T]` int64 each."""
        self._here = (slots, positions)
        self._places = {slots.device: self._here}

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns the step's slots and positions, `[T]` int64 each, copied once a step."""
        if device not in self._places:
            assert self._here is not None
            slots, positions = self._here
            self._places[device] = (slots.to(device), positions.to(device))
        return self._places[device]
