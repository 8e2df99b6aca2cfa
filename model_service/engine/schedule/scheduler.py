"""Decides what runs in the next step. Knows counts; touches no tensor.

Every step takes all rows that decode (one pending token) and fills up with
chunks of prompts, as many tokens as the time budget allows, so that a long
prompt never stalls the others. A sequence is admitted when a slot and KV cache
for its whole length are free: nothing runs out of memory halfway.

Room is made in this order: donors go (`places.py`), then rows of sessions that
are idle, then sequences of a higher priority number, then those of a principal that
has more than another (`shares.py`). A sequence that loses its slot keeps its tokens;
they pass through the model again when it is its turn (`waiting.py`), and the outcome
is the same.
"""

from collections.abc import Iterator
from typing import NamedTuple

from model_service.engine.schedule import prefill
from model_service.engine.schedule.places import Places
from model_service.engine.schedule.prefill import PrefillClock
from model_service.engine.schedule.shares import Shares
from model_service.engine.schedule.waiting import Ticket, WaitingQueue
from model_service.engine.sequences.run import Run
from model_service.engine.sequences.sequence import Sequence

# Most prompt tokens of a step in which nothing decodes.
MAX_STEP_TOKENS = 2048

# Tokens of one chunk whose logits are all wanted: each is a row as wide as the vocabulary.
MAX_SCORED_TOKENS = 64

# Share of the KV cache that rows of sessions keep while others generate.
SESSION_SHARE = 0.5


class StepWork(NamedTuple):
    """What a step was for the model: tokens of decoding rows, and the work of prompts."""

    decode_tokens: int
    prefill_work: int


class Scheduler:
    """Holds every sequence: waiting, active (has work in the next step) or idle (a session's).

    Attributes:
        active: sequences with a slot and pending tokens, in order of admission.
        num_preempted: sequences that lost their slot to others, ever.
        num_evicted: idle rows of sessions that did, ever.
    """

    def __init__(
        self, *, max_running: int, max_step_tokens: int, clock: PrefillClock, places: Places
    ) -> None:
        """Creates an empty scheduler.

        Args:
            max_running: most rows of `Generate` at once, and most decoding rows of a step.
            max_step_tokens: most prompt tokens of a step.
            clock: bounds the time of prompts in a step.
            places: slots and KV cache.
        """
        self.active: list[Sequence] = []
        self.num_preempted = 0
        self.num_evicted = 0
        self._max_running = max_running
        self._max_step_tokens = max_step_tokens
        self._clock = clock
        self._places = places
        self._waiting = WaitingQueue()
        self._running: dict[Sequence, Ticket] = {}
        self._idle: dict[Sequence, None] = {}  # the one that was used longest ago first
        self._turn = 0

    @property
    def num_running(self) -> int:
        """Sequences of `Generate` that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._waiting)

    @property
    def kv_used_tokens(self) -> int:
        """Tokens of KV cache reserved."""
        return self._places.used_tokens

    @property
    def kv_session_limit(self) -> int:
        """Tokens of KV cache that the rows of one session may reserve."""
        return int(self._places.total_tokens * SESSION_SHARE)

    # --- Coming and going ------------------------------------------------------------------------

    def add(self, seq: Sequence) -> None:
        """Queues a sequence. Its companions get their slots with it, all of them or none."""
        self._waiting.add([seq, *seq.companions])

    def resume(self, seq: Sequence) -> None:
        """Makes a row of a session active: it has pending tokens. It waits if it has no slot."""
        if seq.slot is None:
            self._waiting.add([seq])
        else:
            self._idle.pop(seq, None)
            self.active.append(seq)

    def rest(self, seq: Sequence) -> None:
        """Makes a row of a session idle. It keeps its slot until another sequence needs it."""
        if seq.slot is None:
            self._waiting.discard(seq)
        else:
            self.active.remove(seq)
            self._idle[seq] = None

    def settle(self, seq: Sequence) -> bool:
        """Gives a new idle row a slot if one is free; otherwise the row has none."""
        if seq.max_length > self._places.room or not self._places.free_slots:
            return False
        self._places.take(seq)
        self._idle[seq] = None
        return True

    def remove(self, seq: Sequence, *, keep: bool = True) -> None:
        """Takes a sequence and its companions out, wherever they are, and frees what they hold.

        Args:
            seq: the sequence.
            keep: whether prompts that begin like it may reuse what it held.
        """
        for member in (seq, *seq.companions):
            if member.slot is None:
                self._waiting.discard(member)
                continue
            self._leave(member, keep=keep)
            if ticket := self._running.pop(member, None):
                ticket.sequences.remove(member)

    def _leave(self, seq: Sequence, *, keep: bool) -> None:
        if seq in self._idle:
            del self._idle[seq]
        elif seq in self.active:
            self.active.remove(seq)
        self._places.leave(seq, keep=keep)

    # --- The next step ---------------------------------------------------------------------------

    def schedule(self) -> list[Run]:
        """Returns the runs of the next step; none when there is nothing to do."""
        self._admit()
        prompts = self._prompts()
        decoding = [seq for seq in self.active if seq.num_pending == 1]
        if len(decoding) > self._max_running:  # sessions may exceed a step: take turns
            start = self._turn % len(decoding)
            decoding = (decoding[start:] + decoding[:start])[: self._max_running]
            self._turn += self._max_running
        runs = [Run(seq, 1, (0,)) for seq in decoding]
        budget = min(self._max_step_tokens, self._clock.budget(len(decoding), len(prompts)))
        pending = [self._clock.work(seq.num_cached, seq.num_pending) for seq in prompts]
        for seq, work in zip(prompts, prefill.share(pending, budget), strict=True):
            if work:
                runs.append(_chunk(seq, max(1, self._clock.length(seq.num_cached, work))))
        return runs

    def work_of(self, runs: list[Run]) -> StepWork:
        """Returns what the model has done in a step, right after the runs have passed."""
        decode_tokens = sum(run.num_tokens for run in runs if run.length == 1)
        chunks = [(run.sequence.num_cached, run.length) for run in runs if run.length > 1]
        work = sum(self._clock.work(cached - length, length) for cached, length in chunks)
        return StepWork(decode_tokens, work)

    def learn(self, work: StepWork, duration_s: float) -> None:
        """Takes note of how long the model took for a step."""
        self._clock.learn(work.decode_tokens, work.prefill_work, duration_s)

    def _prompts(self) -> list[Sequence]:
        """Returns the sequences whose next chunk could run, in order of admission.

        One that begins like another that is under way waits for what they share.
        """
        prompts: list[Sequence] = []
        for seq in self.active:
            if seq.num_cached == 0 and seq.num_pending > 1 and not self._places.reuse(seq, prompts):
                continue
            if seq.num_pending > 1:
                prompts.append(seq)
        return prompts

    # --- Admission -------------------------------------------------------------------------------

    def _admit(self) -> None:
        while (ticket := self._next_with_room()) is not None:
            self._waiting.take(ticket)
            for seq in ticket.sequences:
                self._places.take(seq)
                self.active.append(seq)
                if not seq.in_session:
                    self._running[seq] = ticket

    def _next_with_room(self) -> Ticket | None:
        """Returns the ticket that gets its places now, and makes room for it.

        It is the next one, or, where that has no room, one whose principal then has no more
        than the principal of the next has already. So a large ticket waits for its room
        undisturbed, unless others run for its own principal.
        """
        ticket = self._waiting.next()
        if ticket is None or self._make_room(ticket):
            return ticket
        others = self._waiting.of_others(ticket)
        if not others:
            return None
        shares = self._shares()
        most = shares.of(ticket.principal)
        fair = (other for other in others if shares.with_(other) <= most)
        return next((other for other in fair if self._make_room(other)), None)

    def _shares(self) -> Shares:
        return Shares(
            self._tickets_running(),
            max_rows=self._max_running,
            max_tokens=self._places.total_tokens,
        )

    def _tickets_running(self) -> list[Ticket]:
        return [*{id(ticket): ticket for ticket in self._running.values()}.values()]

    def _make_room(self, ticket: Ticket) -> bool:
        """Takes places from others as far as a ticket's claim goes; nothing if that is too little.

        Returns:
            Whether there is room for the ticket.
        """
        rows = self.num_running + ticket.num_generating - self._max_running
        tokens = ticket.num_tokens - self._places.room
        slots = len(ticket.sequences) - self._places.free_slots
        idle: list[Sequence] = []
        for seq in self._evictable(ticket):
            if tokens <= 0 and slots <= 0:
                break
            idle.append(seq)
            tokens -= seq.max_length
            slots -= 1
        losers: list[Ticket] = []
        for other in self._preemptible(ticket):
            if tokens <= 0 and rows <= 0 and slots <= 0:
                break
            losers.append(other)
            tokens -= other.num_tokens
            rows -= other.num_generating
            slots -= len(other.sequences)
        if tokens > 0 or rows > 0 or slots > 0:
            return False
        for seq in idle:
            self._leave(seq, keep=True)
        for other in losers:
            self._preempt(other)
        self.num_evicted += len(idle)
        return True

    def _evictable(self, ticket: Ticket) -> list[Sequence]:
        """Returns the idle rows that may lose their slots to a ticket, in this order.

        Rows of sessions make way for each other, rows of the same salt first: a
        caller that opens many sessions loses its own. For sequences that generate
        they make way as far as sessions hold more than their share, or when nothing
        generates: otherwise these sequences would wait for the sessions' clients.
        """
        salt = ticket.sequences[0].salt
        idle = sorted(self._idle, key=lambda seq: seq.salt != salt)
        if not ticket.num_generating or not self.num_running:
            return idle
        excess = self._places.session_tokens - self.kv_session_limit
        evictable = []
        for seq in idle:
            if excess <= 0:
                break
            evictable.append(seq)
            excess -= seq.max_length
        return evictable

    def _preemptible(self, ticket: Ticket) -> Iterator[Ticket]:
        """Yields the running tickets that may lose their places to a ticket, in this order.

        Those of a higher priority number, and among equals those of principals that keep at
        least as much without it as the ticket's principal then has. So places are shared
        evenly by those who want them, and nobody takes back what was taken for that.
        """
        running, shares = self._tickets_running(), self._shares()
        below = [t for t in running if t.priority > ticket.priority and t.can_be_preempted]
        for other in sorted(below, key=lambda t: (t.priority, t.arrival), reverse=True):
            shares.take(other)
            yield other
        own = shares.with_(ticket)
        equals = [
            other
            for other in running
            if other.priority == ticket.priority
            and other.principal != ticket.principal
            and shares.without(other) >= own
        ]
        while equals:
            other = max(equals, key=lambda t: (shares.of(t.principal), *t.ease_of_loss))
            equals.remove(other)
            if shares.without(other) >= own:
                shares.take(other)
                yield other

    def _preempt(self, ticket: Ticket) -> None:
        for seq in ticket.sequences:
            self._leave(seq, keep=True)
            del self._running[seq]
        self.num_preempted += len(ticket.sequences)
        self._waiting.put_back(ticket)


def _chunk(seq: Sequence, most: int) -> Run:
    """Cuts the next run from a sequence's pending tokens, and says which logits are wanted.

    The last pending token's logits are always wanted; the logits of earlier tokens
    only where the distribution of given tokens was asked for.
    """
    length = min(seq.num_pending, most)
    first = max(seq.first_described - seq.num_cached, 0)
    if seq.call.prompt_selection is not None:
        length = min(length, first + MAX_SCORED_TOKENS)
    completes = length == seq.num_pending
    if seq.call.prompt_selection is None:
        return Run(seq, length, (length - 1,) if completes else ())
    return Run(seq, length, tuple(range(first, length)))
