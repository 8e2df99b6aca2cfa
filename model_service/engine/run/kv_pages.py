"""Keys and values in pages, for memory that is there or not: that of a GPU.

K: key-value heads, D: head size, T: tokens of the step.
"""

from typing import Protocol

import torch
from torch import Tensor

from model_service.engine.run.kv_cache import KVCache, PageTensor, SlotTensor
from model_service.engine.run.page_table import (
    PAGE_TOKENS,
    PageCopy,
    PageTable,
    most_tokens,
    pages_of,
)


class PagedKernel(Protocol):
    """Attention over pages, as `paged_attention.attend`."""

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        table: Tensor,
        slots: Tensor,
        positions: Tensor,
        *,
        longest: int,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Attends for tokens of any slots: `[T, H, D]` to `[T, H, Dv]`, in the dtype of `query`."""
        ...


class PagedKVCache(KVCache):
    """All layers' slots, each a list of pages.

    A prefix is copied by sharing its whole pages. What a slot reads is what it or the slot
    that it was copied from has written, and zeros: pages that nobody has are cleared.

    Attributes:
        table: which pages hold the tokens of which slot.
        kernel: attends over pages in place; None where they are gathered first.
    """

    is_paged = True
    kernel: PagedKernel | None = None

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        num_pages: int,
        max_length: int,
        dtype: torch.dtype,
    ) -> None:
        """Describes pages; a layer allocates its own when it first runs.

        Args:
            num_layers: of the model.
            num_slots: sequences that can be held.
            num_pages: pages that there are.
            max_length: tokens of a slot.
            dtype: of keys and values.
        """
        super().__init__(
            num_layers=num_layers, num_slots=num_slots, max_length=max_length, dtype=dtype
        )
        self.table = PageTable(num_slots=num_slots, num_pages=num_pages, max_length=max_length)
        self._tables: dict[torch.device, Tensor] = {}

    def tensor(self, states: Tensor) -> PageTensor:
        """Allocates pages in the cache's dtype for states `[1, K, T, D]`, on their device."""
        shape = (self.table.num_pages, PAGE_TOKENS, states.shape[1], states.shape[3])
        return PageTensor(torch.zeros(shape, dtype=self.dtype, device=states.device))

    @property
    def most_tokens(self) -> int:
        """Tokens that fit whatever slots they are in."""
        return most_tokens(self.table.num_pages, self.num_slots)

    @torch.inference_mode()
    def free(self, slot: int, length: int) -> None:
        """Gives a slot back. Pages that nobody else has become zeros."""
        self._clear(self.table.release(slot))
        self._free.append(slot)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Makes a slot hold the first `length` tokens of another."""
        self._clear(self.table.release(target))
        self._copy(self.table.share(source, target, length))

    @torch.inference_mode()
    def claim(self, slot: int, start: int, end: int) -> None:
        """Gives a slot pages of its own for the tokens `[start, end)` of the next step."""
        self._copy(self.table.claim(slot, start, end))

    def set_places(self, slots: Tensor, positions: Tensor) -> None:
        """Says where the next step's keys and values go: slot and position, `[T]` int64 each."""
        table = self.table_on(slots.device)
        pages = table[slots, positions // PAGE_TOKENS].long()
        super().set_places(pages, positions % PAGE_TOKENS)

    def read(self, part: SlotTensor | PageTensor, slot: int, length: int) -> Tensor:
        """Returns the first tokens of a slot, `[length, K, D]` in the cache's dtype."""
        pages = self.table_on(part.data.device)[slot, : pages_of(length)]
        return part.data.index_select(0, pages).flatten(0, 1)[:length]

    def read_rows(self, part: SlotTensor | PageTensor, slots: Tensor, length: int) -> Tensor:
        """Gathers the first tokens of several slots, `[N, length, K, D]` in the cache's dtype."""
        pages = self.table_on(part.data.device)[slots, : pages_of(length)]
        rows = part.data.index_select(0, pages.flatten()).view(len(slots), -1, *part.data.shape[2:])
        return rows[:, :length]

    def table_on(self, device: torch.device) -> Tensor:
        """Returns the table on a device, `[slots, pages of a slot]` int32, as it is now."""
        if self.table.changed:
            slots = sorted(self.table.changed)
            rows = torch.from_numpy(self.table.numbers[slots])
            packed = torch.cat((torch.tensor(slots, dtype=torch.int32)[:, None], rows), 1)
            for other, table in self._tables.items():
                changes = packed.to(other, non_blocking=True)
                table.index_copy_(0, changes[:, 0].long(), changes[:, 1:])
            self.table.changed.clear()
        if device not in self._tables:
            self._tables[device] = torch.from_numpy(self.table.numbers.copy()).to(device)
        return self._tables[device]

    def _copy(self, copies: list[PageCopy]) -> None:
        for part in self.parts if copies else ():
            for copy in copies:
                part.data[copy.target, : copy.length] = part.data[copy.source, : copy.length]

    def _clear(self, pages: list[int]) -> None:
        if not pages:
            return
        numbers = torch.tensor(pages)
        by_device: dict[torch.device, Tensor] = {}
        for part in self.parts:
            device = part.data.device
            if device not in by_device:
                by_device[device] = numbers.to(device, non_blocking=True)
            part.data.index_fill_(0, by_device[device], 0)
