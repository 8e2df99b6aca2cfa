"""Which pages of keys and values hold the tokens of which slot. Knows numbers; touches no tensor.

A slot is a list of pages, each for `PAGE_TOKENS` tokens. Whole pages of a copied
prefix belong to several slots, and are counted; a slot that writes to one of these
gets a page of its own first. Nothing here can run out: the scheduler admits no more
tokens than there are pages for (`most_tokens`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAGE_TOKENS = 16

# The page of unused entries of the table: no slot has it, and nothing is written to it.
NOBODYS = 0


@dataclass(frozen=True, slots=True)
class PageCopy:
    """The first `length` tokens of a page, to be copied to another one."""

    source: int
    target: int
    length: int


class PageTable:
    """The pages of all slots.

    Attributes:
        num_pages: pages that there are, `NOBODYS` included.
        numbers: `[slots, pages of a slot]` int32, the page of each stretch of a slot's tokens.
        changed: slots whose row of `numbers` has changed since somebody emptied this set.
    """

    def __init__(self, *, num_slots: int, num_pages: int, max_length: int) -> None:
        """Gives no slot a page yet.

        Args:
            num_slots: slots that there are.
            num_pages: pages that there are, `NOBODYS` included.
            max_length: most tokens of a slot.
        """
        self.num_pages = num_pages
        self.numbers: NDArray[np.int32] = np.full(
            (num_slots, pages_of(max_length)), NOBODYS, dtype=np.int32
        )
        self.changed: set[int] = set()
        self._pages: list[list[int]] = [[] for _ in range(num_slots)]
        self._holders = [0] * num_pages
        self._free = list(range(num_pages - 1, NOBODYS, -1))

    @property
    def num_free(self) -> int:
        """Pages that no slot has."""
        return len(self._free)

    def pages(self, slot: int) -> tuple[int, ...]:
        """Returns the pages of a slot, in the order of its tokens."""
        return tuple(self._pages[slot])

    def claim(self, slot: int, start: int, end: int) -> list[PageCopy]:
        """Gives a slot pages of its own for what it will write.

        Args:
            slot: the slot, which has pages for all tokens before `start`.
            start: the first token to be written.
            end: the token after the last one.

        Returns:
            What must be copied before: tokens of pages that others have too.
        """
        held, copies = self._pages[slot], []
        for index in range(start // PAGE_TOKENS, pages_of(end)):
            if index == len(held):
                self._put(slot, index, self._take())
            elif self._holders[held[index]] > 1:
                shared, own = held[index], self._take()
                self._holders[shared] -= 1
                self._put(slot, index, own)
                copies.append(PageCopy(shared, own, PAGE_TOKENS))
        return copies

    def share(self, source: int, target: int, length: int) -> list[PageCopy]:
        """Makes an empty slot begin like another one.

        Args:
            source: has the tokens.
            target: gets them.
            length: how many.

        Returns:
            What must be copied: the tokens of a page that is not whole.
        """
        assert not self._pages[target], "A prefix for a slot that is not empty. This is a bug."
        whole, rest = divmod(length, PAGE_TOKENS)
        for index, page in enumerate(self._pages[source][:whole]):
            self._holders[page] += 1
            self._put(target, index, page)
        if not rest:
            return []
        self._put(target, whole, self._take())
        return [PageCopy(self._pages[source][whole], self._pages[target][whole], rest)]

    def release(self, slot: int) -> list[int]:
        """Takes all pages from a slot, and returns those that nobody has any more."""
        free = []
        for page in self._pages[slot]:
            self._holders[page] -= 1
            if not self._holders[page]:
                free.append(page)
        self._free += free
        self._pages[slot] = []
        self.numbers[slot] = NOBODYS
        self.changed.add(slot)
        return free

    def _take(self) -> int:
        assert self._free, "More tokens were admitted than there are pages for. This is a bug."
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _put(self, slot: int, index: int, page: int) -> None:
        held = self._pages[slot]
        if index == len(held):
            held.append(page)
        else:
            held[index] = page
        self.numbers[slot, index] = page
        self.changed.add(slot)


def pages_of(num_tokens: int) -> int:
    """Returns how many pages a slot has for as many tokens."""
    return -(-num_tokens // PAGE_TOKENS)


def most_tokens(num_pages: int, num_slots: int) -> int:
    """Returns the tokens that fit whatever slots they are in: each may leave one page nearly empty.

    Args:
        num_pages: pages that there are, `NOBODYS` included.
        num_slots: slots that there are.
    """
    return (num_pages - 1) * PAGE_TOKENS - num_slots * (PAGE_TOKENS - 1)


def pages_for(num_tokens: int, num_slots: int) -> int:
    """Returns the least number of pages of which `most_tokens` is at least `num_tokens`."""
    return pages_of(num_tokens + num_slots * (PAGE_TOKENS - 1)) + 1
