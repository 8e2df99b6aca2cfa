"""The order in which sequences get their places.

Lower priority numbers go first. Among equals, principals take turns, and the calls of
each do: who arrives goes behind the next sequence of every other, not behind all that
a large one has waiting. Every `TURNS_PER_AGED`-th place goes to the one that has
waited longest, whatever its priority, so that every call is served.
"""

from dataclasses import dataclass
from itertools import count

from model_service.engine.sequences.sequence import Sequence

# Every 16th place goes to the ticket that has waited longest.
TURNS_PER_AGED = 16

# How often a sequence may lose its place to lower priority numbers before it keeps it.
MAX_PREEMPTIONS = 2

# So many principals are remembered; then those are forgotten for whom nothing waits.
MAX_STANDINGS = 1024

Key = tuple[int, str]
"""A priority and a principal."""


@dataclass(slots=True, eq=False)
class Ticket:
    """Sequences that get their places together, and their claim.

    Attributes:
        sequences: the ones that have not ended.
        priority: lower goes first.
        principal: who they are computed for.
        turn: when it is served among the calls of its principal, one sequence of each in turn.
        arrival: grows from ticket to ticket.
        num_preemptions: how often its places were taken away.
        aged: whether it got its places for its age.
    """

    sequences: list[Sequence]
    priority: int
    principal: str
    turn: int
    arrival: int
    num_preemptions: int = 0
    aged: bool = False

    @property
    def key(self) -> Key:
        """With whom it takes turns."""
        return self.priority, self.principal

    @property
    def num_tokens(self) -> int:
        """Tokens of KV cache that it needs."""
        return sum(seq.max_length for seq in self.sequences)

    @property
    def num_generating(self) -> int:
        """Sequences that count as generating."""
        return sum(not seq.in_session for seq in self.sequences)

    @property
    def can_be_preempted(self) -> bool:
        """Whether its places may go to tickets of lower priority numbers."""
        return not self.aged and self.num_preemptions < MAX_PREEMPTIONS

    @property
    def ease_of_loss(self) -> tuple[bool, int, int]:
        """Orders the tickets of a principal that has to give places back, the largest first."""
        return self.can_be_preempted, -self.num_preemptions, self.arrival


@dataclass(slots=True)
class _Standing:
    """How far a principal has come among those of one priority.

    Attributes:
        round: in which it is served next, one sequence of every principal in each.
        turn: the newest turn of its calls that was served.
    """

    round: int = 0
    turn: int = 0


class WaitingQueue:
    """Tickets without places. Few enough, by the front's limit, to look at all of them."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._arrivals = count()
        self._standings: dict[Key, _Standing] = {}
        self._rounds: dict[int, int] = {}  # the newest that was served, by priority
        self._num_taken = 0

    def __len__(self) -> int:
        return sum(len(ticket.sequences) for ticket in self._tickets)

    def add(self, sequences: list[Sequence]) -> Ticket:
        """Adds sequences of one call that get their places together."""
        call, principal = sequences[0].call, sequences[0].principal
        key = call.priority, principal
        standing = self._join(key)
        turns = [
            ticket.turn + len(ticket.sequences)
            for ticket in self._tickets
            if ticket.key == key and ticket.sequences[0].call.request_id == call.request_id
        ]
        turn = max(turns, default=standing.turn + 1)
        ticket = Ticket(list(sequences), call.priority, principal, turn, next(self._arrivals))
        self._tickets.append(ticket)
        return ticket

    def next(self) -> Ticket | None:
        """Returns the ticket that is served next, and leaves it there."""
        if not self._tickets:
            return None
        if self._num_taken % TURNS_PER_AGED != TURNS_PER_AGED - 1:
            return min(self._tickets, key=self._claim)
        return min(self._tickets, key=lambda ticket: ticket.arrival)

    def of_others(self, ticket: Ticket) -> list[Ticket]:
        """Returns the tickets of other principals that may pass a ticket that has no room.

        The first one of each, in order, and none of a higher priority number.
        """
        firsts: dict[str, Ticket] = {}
        for other in sorted(self._tickets, key=self._claim):
            if other.priority <= ticket.priority and other.principal != ticket.principal:
                firsts.setdefault(other.principal, other)
        return [*firsts.values()]

    def take(self, ticket: Ticket) -> None:
        """Takes out the ticket that was next, or one that passes it."""
        if ticket is self.next():
            ticket.aged = ticket.aged or ticket is not min(self._tickets, key=self._claim)
            self._num_taken += 1
        self._tickets.remove(ticket)
        standing = self._standings[ticket.key]
        standing.turn = max(standing.turn, ticket.turn)
        self._rounds[ticket.priority] = max(self._round(ticket.priority), standing.round)
        standing.round += len(ticket.sequences)

    def put_back(self, ticket: Ticket) -> None:
        """Adds a ticket that lost its places, before what its principal has waiting."""
        ticket.num_preemptions += 1
        self._join(ticket.key)
        self._tickets.append(ticket)

    def discard(self, seq: Sequence) -> None:
        """Takes out a sequence, if it is there."""
        for ticket in self._tickets:
            if seq in ticket.sequences:
                ticket.sequences.remove(seq)
        self._tickets = [ticket for ticket in self._tickets if ticket.sequences]

    def _join(self, key: Key) -> _Standing:
        """Lets a principal take part in the present round, unless it is ahead of it."""
        waiting = {ticket.key for ticket in self._tickets}
        if len(self._standings) > MAX_STANDINGS:
            self._standings = {k: each for k, each in self._standings.items() if k in waiting}
        standing = self._standings.setdefault(key, _Standing())
        if key not in waiting:
            standing.round = max(standing.round, self._round(key[0]) + 1)
        return standing

    def _round(self, priority: int) -> int:
        return self._rounds.get(priority, 0)

    def _claim(self, ticket: Ticket) -> tuple[int, int, int, int]:
        return (
            ticket.priority,
            self._standings[ticket.key].round,
            ticket.turn,
            ticket.arrival,
        )
