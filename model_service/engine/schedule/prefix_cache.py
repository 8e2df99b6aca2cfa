"""Keys and values kept for prompts that begin like an earlier one.

A sequence that ends may leave its slot behind as a donor. A prompt copies what
it has in common with the best holder of its own salt, a donor or a sequence
that is still there, and computes the rest. What is compared is the tokens
themselves: no hash can collide. A token's keys and values depend on nothing
but the tokens before it, so neither revision nor configuration matters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

# A shorter prefix is computed faster than it is copied, layer by layer.
MIN_TOKENS = 16


class Holder(Protocol):
    """Whoever has keys and values of its first `num_cached` tokens in a slot."""

    @property
    def token_ids(self) -> list[int]:
        """The tokens."""
        ...

    @property
    def num_cached(self) -> int:
        """How many of them are in the slot."""
        ...

    @property
    def salt(self) -> str | None:
        """Only sequences of the same salt may copy them; none when it is None."""
        ...

    @property
    def slot(self) -> int | None:
        """The slot."""
        ...


@dataclass(slots=True, eq=False)
class Donor:
    """What a sequence left behind.

    Attributes:
        token_ids: its tokens, as many as are cached.
        salt: who may copy them.
        slot: where they are.
        num_written: tokens of the slot that were ever written.
    """

    token_ids: list[int]
    salt: str
    slot: int
    num_written: int

    @property
    def num_cached(self) -> int:
        """Tokens in the slot."""
        return len(self.token_ids)


class PrefixCache:
    """The donors, from the one that was of use longest ago to the latest."""

    def __init__(self) -> None:
        self._donors: dict[Donor, None] = {}

    def __len__(self) -> int:
        return len(self._donors)

    @property
    def donors(self) -> list[Donor]:
        """The donors, the next one to go first."""
        return [*self._donors]

    @property
    def num_tokens(self) -> int:
        """Tokens of memory that the donors take."""
        return sum(donor.num_written for donor in self._donors)

    def add(self, donor: Donor) -> list[Donor]:
        """Keeps a donor, and returns the donors that have become useless, perhaps itself."""
        for other in self._donors:
            if _begins_with(other, donor):
                self.touch(other)
                return [donor]
        useless = [other for other in self._donors if _begins_with(donor, other)]
        for other in useless:
            del self._donors[other]
        self._donors[donor] = None
        return useless

    def touch(self, holder: Holder) -> None:
        """Makes a donor the last one to go. Any other holder is left alone."""
        if isinstance(holder, Donor) and holder in self._donors:
            del self._donors[holder]
            self._donors[holder] = None

    def pop(self) -> Donor:
        """Takes out the donor that was of use longest ago."""
        donor = next(iter(self._donors))
        del self._donors[donor]
        return donor

    def lowest_below(self, slot: int) -> Donor | None:
        """Returns the donor in the lowest slot, if that is below `slot`."""
        below = (donor for donor in self._donors if donor.slot < slot)
        return min(below, key=lambda donor: donor.slot, default=None)

    def best(
        self, token_ids: list[int], salt: str | None, limit: int, others: Iterable[Holder]
    ) -> tuple[Holder, int] | None:
        """Finds the holder that has most of the first tokens.

        Args:
            token_ids: tokens of a sequence.
            salt: whose holders it may copy from.
            limit: how many of the tokens may be copied.
            others: holders in addition to the donors.

        Returns:
            The holder and the number of tokens, at least `MIN_TOKENS`; None if there is none.
        """
        if salt is None:
            return None
        found, length = None, MIN_TOKENS - 1
        for holder in (*self._donors, *others):
            most = min(limit, holder.num_cached)
            if holder.salt != salt or most <= length:
                continue
            if holder.token_ids[length] != token_ids[length]:  # it cannot be better
                continue
            common = common_length(holder.token_ids, token_ids, most)
            if common > length:
                found, length = holder, common
        return None if found is None else (found, length)


def common_length(one: list[int], other: list[int], limit: int) -> int:
    """Returns how many of the first `limit` tokens of two lists are equal."""
    if one[:limit] == other[:limit]:
        return limit
    equal, differs = 0, limit
    while differs - equal > 1:
        middle = (equal + differs) // 2
        if one[equal:middle] == other[equal:middle]:
            equal = middle
        else:
            differs = middle
    return equal


def _begins_with(donor: Donor, other: Donor) -> bool:
    """Whether `other` has nothing that `donor` has not."""
    length = other.num_cached
    return donor.salt == other.salt and donor.token_ids[:length] == other.token_ids
