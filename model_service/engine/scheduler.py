"""Decides what runs in the next step. Knows counts; touches no tensor.

Every step takes all rows that decode (one pending token) and fills up with
chunks of prompts, oldest first, as many tokens as the time budget allows, so
that a long prompt never stalls the others. A sequence is admitted when a slot
and KV cache for its whole length are free: nothing runs out of memory halfway.
"""

import heapq
from collections.abc import Callable
from itertools import count

from model_service.engine.sequence import Run, Sequence

# Tokens of one chunk whose logits are all wanted: each is a row as wide as the vocabulary.
MAX_SCORED_TOKENS = 64

MIN_CHUNK_TOKENS = 16

# Share of the KV cache that sessions may hold, so that generation always goes on.
SESSION_SHARE = 0.5


class PrefillClock:
    """Learns how many prompt tokens pass through the model in a second."""

    def __init__(self, budget_s: float, tokens_per_s: float = 1000.0) -> None:
        self._budget_s = budget_s
        self._tokens_per_s = tokens_per_s

    def tokens(self) -> int:
        """Returns the tokens that fit the budget."""
        return max(MIN_CHUNK_TOKENS, int(self._tokens_per_s * self._budget_s))

    def learn(self, num_tokens: int, duration_s: float) -> None:
        """Takes note of a step that was mostly prefill."""
        if num_tokens >= MIN_CHUNK_TOKENS and duration_s > 0:
            self._tokens_per_s += 0.3 * (num_tokens / duration_s - self._tokens_per_s)


class Scheduler:
    """Holds every sequence: waiting, active (has work in the next step) or idle (a session's).

    Attributes:
        active: sequences with a slot and pending tokens, in order of admission.
        kv_used_tokens: tokens of KV cache reserved.
        kv_session_tokens: those of them that sessions hold.
    """

    def __init__(
        self,
        *,
        max_running: int,
        kv_total_tokens: int,
        max_step_tokens: int,
        clock: PrefillClock,
        allocate: Callable[[], int],
        free: Callable[[int, int], None],
    ) -> None:
        """Creates an empty scheduler.

        Args:
            max_running: most rows of `Generate` at once, and most decoding rows of a step.
            kv_total_tokens: tokens of KV cache in all.
            max_step_tokens: most prompt tokens of a step in which nothing decodes.
            clock: bounds prompt tokens beside decoding rows.
            allocate: takes a slot.
            free: gives a slot back, with the number of tokens that were ever written to it.
        """
        self.active: list[Sequence] = []
        self.kv_used_tokens = 0
        self.kv_session_tokens = 0
        self._max_running = max_running
        self._kv_total_tokens = kv_total_tokens
        self._max_step_tokens = max_step_tokens
        self._clock = clock
        self._allocate = allocate
        self._free = free
        self._waiting: list[tuple[int, int, Sequence]] = []
        self._order = count()
        self._num_running = 0
        self._turn = 0

    @property
    def num_running(self) -> int:
        """Sequences of `Generate` that hold a slot."""
        return self._num_running

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a slot."""
        return sum(1 + len(seq.companions) for _, _, seq in self._waiting)

    @property
    def kv_session_limit(self) -> int:
        """Tokens of KV cache that sessions may hold in all."""
        return int(self._kv_total_tokens * SESSION_SHARE)

    def add(self, seq: Sequence) -> None:
        """Queues a sequence: lower priority numbers first, then in order of arrival.

        Its companions are admitted with it, all of them or none.
        """
        heapq.heappush(self._waiting, (seq.priority, next(self._order), seq))

    def open(self, sequences: list[Sequence]) -> bool:
        """Admits all rows of a session at once, or none of them. They rest until resumed."""
        needed = sum(seq.max_length for seq in sequences)
        if self.kv_session_tokens + needed > self.kv_session_limit:
            return False
        if self.kv_used_tokens + needed > self._kv_total_tokens:
            return False
        for seq in sequences:
            self._reserve(seq)
        return True

    def resume(self, seq: Sequence) -> None:
        """Makes an idle session row active: it has pending tokens."""
        self.active.append(seq)

    def rest(self, seq: Sequence) -> None:
        """Makes a session row idle: it keeps its slot and waits for its client."""
        self.active.remove(seq)

    def remove(self, seq: Sequence) -> None:
        """Takes a sequence and its companions out, wherever they are, and frees what they hold."""
        if seq.slot is None:
            self._waiting = [entry for entry in self._waiting if entry[2] is not seq]
            heapq.heapify(self._waiting)
            return
        for member in (seq, *seq.companions):
            self._release(member)

    def _release(self, seq: Sequence) -> None:
        assert seq.slot is not None
        if seq in self.active:
            self.active.remove(seq)
        self._free(seq.slot, seq.num_written)
        seq.slot = None
        self.kv_used_tokens -= seq.max_length
        if seq.in_session:
            self.kv_session_tokens -= seq.max_length
        else:
            self._num_running -= 1

    def schedule(self) -> list[Run]:
        """Returns the runs of the next step; none when there is nothing to do."""
        self._admit()
        decoding = [seq for seq in self.active if seq.num_pending == 1]
        if len(decoding) > self._max_running:  # sessions may exceed a step: take turns
            start = self._turn % len(decoding)
            decoding = (decoding[start:] + decoding[:start])[: self._max_running]
            self._turn += self._max_running
        runs = [Run(seq, 1, (0,)) for seq in decoding]
        budget = self._clock.tokens() if decoding else self._max_step_tokens
        for seq in self.active:
            if budget <= 0:
                break
            if seq.num_pending > 1:
                run = _chunk(seq, budget)
                runs.append(run)
                budget -= run.length
        return runs

    def learn(self, num_tokens: int, duration_s: float) -> None:
        """Takes note of how long prompt tokens took in a step of nothing else."""
        self._clock.learn(num_tokens, duration_s)

    def _admit(self) -> None:
        while self._waiting:
            seq = self._waiting[0][2]
            members = (seq, *seq.companions)
            needed = sum(member.max_length for member in members)
            if self._num_running + len(members) > self._max_running:
                return
            if self.kv_used_tokens + needed > self._kv_total_tokens:
                return
            heapq.heappop(self._waiting)
            for member in members:
                self._reserve(member)
                self.active.append(member)

    def _reserve(self, seq: Sequence) -> None:
        seq.slot = self._allocate()
        self.kv_used_tokens += seq.max_length
        if seq.in_session:
            self.kv_session_tokens += seq.max_length
        else:
            self._num_running += 1


def _chunk(seq: Sequence, budget: int) -> Run:
    """Cuts the next run from a sequence's pending tokens, and says which logits are wanted.

    The last pending token's logits are always wanted; those of earlier tokens
    only where the distribution of given tokens was asked for.
    """
    length = min(seq.num_pending, budget)
    first = max(seq.first_given - seq.num_cached, 0)
    if seq.prompt_selection is not None:
        length = min(length, first + MAX_SCORED_TOKENS)
    completes = length == seq.num_pending
    if seq.prompt_selection is None:
        return Run(seq, length, (length - 1,) if completes else ())
    return Run(seq, length, tuple(range(first, length)))
