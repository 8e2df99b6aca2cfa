"""Where keys and values live: one slot per sequence, dense or in pages.

In a machine's own memory a slot is a row of `[slots, max_length, K, D]` per layer
(`SlotTensor`). Address space is reserved for every slot at full length, but the
operating system gives it memory only once it is written and takes that back when the
slot is freed. A GPU's memory is there or not, so a slot is a list of pages there
(`PageTensor`, `page_table.py`). The scheduler admits by tokens, so memory stays within
its budget. A freed slot reads as zeros: nothing of one request, not even a NaN, can
reach the next.

K: key-value heads, D: head size, T: tokens of the step.
"""

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

PAGE_BYTES = mmap.PAGESIZE


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


@dataclass(slots=True)
class PageTensor:
    """Keys or values of one layer, `[pages, PAGE_TOKENS, K, D]`."""

    data: Tensor


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
        self.k: SlotTensor | PageTensor | None = None
        self.v: SlotTensor | PageTensor | None = None

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
        places = self._store.places(key_states.device)
        self.k.data.index_put_(places, key_states[0].transpose(0, 1))
        self.v.data.index_put_(places, value_states[0].transpose(0, 1))
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
    """All layers' slots, each dense; `PagedKVCache` has them in pages.

    Attributes:
        num_slots: sequences that can be held.
        max_length: tokens of a slot.
        dtype: of keys and values.
        slot_layers: the layers, by index.
        claimed_length: what a model is told that asks for the length of its cache. No result may
            depend on it, which is tried at start.
        cuts_freely: True: what lies beyond a cut is never read, and written over.
        is_paged: whether a slot's tokens lie in pages, so that several slots are never one tensor.
    """

    cuts_freely = True
    is_paged = False

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

    def tensor(self, states: Tensor) -> SlotTensor | PageTensor:
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
        return sum(part.data[0, 0].numel() * part.data.itemsize for part in self.parts)

    @property
    def parts(self) -> list[SlotTensor | PageTensor]:
        """Keys and values of the layers that have run: `[.., .., K, D]` in the cache's dtype."""
        both = [part for layer in self.slot_layers for part in (layer.k, layer.v)]
        return [part for part in both if part is not None]

    def allocate(self) -> int:
        """Takes the lowest free slot, so that running sequences lie close together."""
        self._free.sort(reverse=True)
        return self._free.pop()

    @torch.inference_mode()
    def free(self, slot: int, length: int) -> None:
        """Gives a slot back and forgets its first `length` tokens."""
        for part in self.parts:
            assert isinstance(part, SlotTensor)
            part.clear(slot, length)
        self._free.append(slot)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a slot to another, in all layers."""
        for part in self.parts:
            part.data[target, :length] = part.data[source, :length]

    def claim(self, slot: int, start: int, end: int) -> None:
        """Prepares a slot for the tokens `[start, end)` of the next step."""

    def set_places(self, slots: Tensor, positions: Tensor) -> None:
        """Says where the next step's keys and values go: slot and position, `[T]` int64 each."""
        self._here = (slots, positions)
        self._places = {slots.device: self._here}

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns where the step's tokens go, copied once a step.

        Returns:
            First and second index into the keys and values of a layer, `[T]` int64 each.
        """
        if device not in self._places:
            assert self._here is not None
            first, second = self._here
            self._places[device] = (
                first.to(device, non_blocking=True),
                second.to(device, non_blocking=True),
            )
        return self._places[device]

    def read(self, part: SlotTensor | PageTensor, slot: int, length: int) -> Tensor:
        """Returns the first tokens of a slot, `[length, K, D]` in the cache's dtype."""
        return part.data[slot, :length]

    def read_rows(self, part: SlotTensor | PageTensor, slots: Tensor, length: int) -> Tensor:
        """Gathers the first tokens of several slots.

        Args:
            part: keys or values of a layer.
            slots: `[N]` int64, on the device of the part.
            length: how many tokens, of which a slot may have fewer: the rest is zeros.

        Returns:
            `[N, length, K, D]` in the cache's dtype.
        """
        return part.data[:, :length].index_select(0, slots)
