"""Who holds slots and tokens of KV cache, and what is kept in the rest.

A sequence with a slot has reserved as many tokens as it may grow to. What
is not reserved holds donors (see `prefix_cache.py`), which go first when room
is needed: keeping them costs no sequence anything.
"""

from collections.abc import Callable, Iterable

from model_service.engine.schedule.prefix_cache import (
    MIN_TOKENS,
    Donor,
    Holder,
    PrefixCache,
    common_length,
)
from model_service.engine.sequences.sequence import Sequence


class Places:
    """All slots, and the tokens that may be in them.

    Attributes:
        num_slots: slots that there are.
        total_tokens: tokens of KV cache in total.
        used_tokens: tokens reserved.
        session_tokens: the part of them that rows of sessions have reserved.
        num_hits: prompts that copied a prefix, ever.
        num_hit_tokens: tokens that they copied, ever.
    """

    def __init__(
        self,
        *,
        num_slots: int,
        total_tokens: int,
        allocate: Callable[[], int],
        free: Callable[[int, int], None],
        copy: Callable[[int, int, int], None],
        reuses: bool = True,
    ) -> None:
        """Holds nothing yet.

        Args:
            num_slots: slots that there are.
            total_tokens: tokens of KV cache in total.
            allocate: takes the lowest free slot.
            free: gives a slot back, with the number of tokens that were ever written to it.
            copy: copies a number of first tokens from one slot to another.
            reuses: whether a prefix of what a slot holds can be copied and be used alone.
        """
        self.num_slots = num_slots
        self.total_tokens = total_tokens
        self.used_tokens = 0
        self.session_tokens = 0
        self.num_hits = 0
        self.num_hit_tokens = 0
        self._allocate = allocate
        self._free = free
        self._copy = copy
        self._reuses = reuses
        self._holders: dict[Sequence, None] = {}
        self._prefixes = PrefixCache()

    @property
    def donor_tokens(self) -> int:
        """Tokens of memory that donors take."""
        return self._prefixes.num_tokens

    @property
    def room(self) -> int:
        """Tokens that can be reserved: donors make way."""
        return self.total_tokens - self.used_tokens

    @property
    def free_slots(self) -> int:
        """Slots that can be had: donors make way."""
        return self.num_slots - len(self._holders)

    # --- Taking and leaving ----------------------------------------------------------------------

    def take(self, seq: Sequence) -> None:
        """Gives a sequence a slot and reserves its tokens, for which there must be room."""
        assert seq.max_length <= self.room, "A sequence was admitted without room. This is a bug."
        self._make_room(seq)
        seq.slot = self._lowest_slot()
        self._holders[seq] = None
        self.used_tokens += seq.max_length
        if seq.in_session:
            self.session_tokens += seq.max_length

    def leave(self, seq: Sequence, *, keep: bool) -> None:
        """Takes a sequence's slot away.

        Args:
            seq: a sequence with a slot.
            keep: whether its tokens may stay as a donor's.
        """
        assert seq.slot is not None
        del self._holders[seq]
        self.used_tokens -= seq.max_length
        if seq.in_session:
            self.session_tokens -= seq.max_length
        lends = keep and self._reuses and seq.lends and seq.salt is not None
        if lends and seq.num_cached >= MIN_TOKENS:
            assert seq.salt is not None
            cached = seq.token_ids[: seq.num_cached]
            for useless in self._prefixes.add(Donor(cached, seq.salt, seq.slot, seq.num_written)):
                self._drop(useless)
        else:
            self._free(seq.slot, seq.num_written)
        seq.lose_slot()

    def copy(self, source: Sequence, target: Sequence) -> None:
        """Copies what is cached of a sequence to the empty slot of one with the same tokens."""
        assert source.slot is not None
        assert target.slot is not None
        self._copy(source.slot, target.slot, source.num_cached)
        target.take_over(source.num_cached)

    def _lowest_slot(self) -> int:
        """Takes the lowest slot that no sequence holds.

        A decode step reads the span of slots between its rows, so a donor that
        lies in the way is moved up.
        """
        slot = self._allocate()
        donor = self._prefixes.lowest_below(slot)
        if donor is None:
            return slot
        self._copy(donor.slot, slot, donor.num_cached)
        self._free(donor.slot, donor.num_written)
        donor.slot, donor.num_written = slot, donor.num_cached
        return self._allocate()

    def _make_room(self, seq: Sequence) -> None:
        """Drops donors until there are a slot and memory, the one that `seq` wants last."""
        if self._fits(seq.max_length):
            return
        if found := self._best(seq):
            self._prefixes.touch(found[0])
        while not self._fits(seq.max_length):
            self._drop(self._prefixes.pop())

    def _fits(self, num_tokens: int) -> bool:
        if len(self._holders) + len(self._prefixes) >= self.num_slots:
            return False
        return self.donor_tokens + num_tokens <= self.room

    def _drop(self, donor: Donor) -> None:
        self._free(donor.slot, donor.num_written)

    # --- Reuse -----------------------------------------------------------------------------------

    def reuse(self, seq: Sequence, computing: Iterable[Sequence]) -> bool:
        """Copies the longest known prefix of a sequence that has a slot and nothing in it.

        Args:
            seq: the sequence.
            computing: sequences that pass tokens through the model now.

        Returns:
            False if one of those will soon have a prefix that is longer by far: to wait for it
            is less work than to compute the same.
        """
        assert seq.slot is not None
        if seq.salt is None or not self._reuses:
            return True
        limit = seq.first_described
        found = self._best(seq)
        length = found[1] if found else 0
        for other in computing:
            if other.salt == seq.salt and other.lends:
                most = min(limit, len(other.token_ids))
                if common_length(other.token_ids, seq.token_ids, most) >= length + MIN_TOKENS:
                    return False
        if found:
            holder, length = found
            assert holder.slot is not None
            self._copy(holder.slot, seq.slot, length)
            self._prefixes.touch(holder)
            seq.take_over(length)
            self.num_hits += 1
            self.num_hit_tokens += length
        return True

    def flush(self) -> int:
        """Forgets all that could be reused, and returns the tokens dropped.

        Sequences go on with what they hold, and lend nothing of it.
        """
        dropped = self.donor_tokens
        while len(self._prefixes):
            self._drop(self._prefixes.pop())
        for seq in self._holders:
            seq.lends = False
        return dropped

    def _best(self, seq: Sequence) -> tuple[Holder, int] | None:
        if not self._reuses:
            return None
        return self._prefixes.best(
            seq.token_ids,
            seq.salt,
            seq.first_described,
            (other for other in self._holders if other.lends and other is not seq),
        )
