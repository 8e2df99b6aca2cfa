"""The order in which sequences get their places.

Lower priority numbers go first. Among equals, calls take turns: a call that
arrives goes behind the next sequence of every other call, not behind all that a
large one has waiting. Every `TURNS_PER_AGED`-th place goes to the one that has
waited longest, whatever its priority, so that every call is served.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import count

from model_service.engine.sequences.sequence import Sequence

# Every 16th place goes to the ticket that has waited longest.
TURNS_PER_AGED = 16

# How often a sequence may lose its place before it keeps it.
MAX_PREEMPTIONS = 2


@dataclass(slots=True, eq=False)
class Ticket:
    """Sequences that get their places together, and their claim.

    Attributes:
        sequences: the ones that have not ended.
        priority: lower goes first.
        turn: the round in which it is served, one sequence of every call in each.
        arrival: grows from ticket to ticket.
        num_preemptions: how often its places were taken away.
        aged: whether it got its places for its age.
    """

    sequences: list[Sequence]
    priority: int
    turn: int
    arrival: int
    num_preemptions: int = 0
    aged: bool = False

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


class WaitingQueue:
    """Tickets without places. Few enough, by the front's limit, to look at all of them."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._arrivals = count()
        self._turns: defaultdict[int, int] = defaultdict(int)  # by priority
        self._num_taken = 0

    def __len__(self) -> int:
        return sum(len(ticket.sequences) for ticket in self._tickets)

    def add(self, sequences: list[Sequence]) -> Ticket:
        """Adds sequences of one call that get their places together."""
        priority, request_id = sequences[0].call.priority, sequences[0].call.request_id
        turns = [
            ticket.turn + len(ticket.sequences)
            for ticket in self._tickets
            if ticket.priority == priority and ticket.sequences[0].call.request_id == request_id
        ]
        turn = max(turns, default=self._turns[priority] + 1)
        ticket = Ticket(list(sequences), priority, turn, next(self._arrivals))
        self._tickets.append(ticket)
        return ticket

    def next(self) -> Ticket | None:
        """Returns the ticket that is served next, and leaves it there."""
        if not self._tickets:
            return None
        first = min(self._tickets, key=_claim)
        if self._num_taken % TURNS_PER_AGED != TURNS_PER_AGED - 1:
            return first
        return min(self._tickets, key=lambda ticket: ticket.arrival)

    def take(self, ticket: Ticket) -> None:
        """Takes out the ticket that was next."""
        ticket.aged = ticket.aged or ticket is not min(self._tickets, key=_claim)
        self._tickets.remove(ticket)
        self._num_taken += 1
        turns = self._turns
        turns[ticket.priority] = max(turns[ticket.priority], ticket.turn)

    def put_back(self, ticket: Ticket) -> None:
        """Adds a ticket that lost its places, where it was before."""
        ticket.num_preemptions += 1
        self._tickets.append(ticket)

    def discard(self, seq: Sequence) -> None:
        """Takes out a sequence, if it is there."""
        for ticket in self._tickets:
            if seq in ticket.sequences:
                ticket.sequences.remove(seq)
        self._tickets = [ticket for ticket in self._tickets if ticket.sequences]


def _claim(ticket: Ticket) -> tuple[int, int, int]:
    return ticket.priority, ticket.turn, ticket.arrival
