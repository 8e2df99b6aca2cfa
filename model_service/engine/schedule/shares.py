"""How much of the places each principal has: the larger of its parts of rows and of KV cache."""

from collections import Counter
from collections.abc import Iterable

from model_service.engine.schedule.waiting import Ticket


class Shares:
    """Parts of what there is, by principal."""

    def __init__(self, tickets: Iterable[Ticket], *, max_rows: int, max_tokens: int) -> None:
        """Adds up what tickets have.

        Args:
            tickets: those with places.
            max_rows: rows that may run at once.
            max_tokens: tokens of KV cache in total.
        """
        self._rows: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        for ticket in tickets:
            self._rows[ticket.principal] += ticket.num_generating
            self._tokens[ticket.principal] += ticket.num_tokens

    def of(self, principal: str) -> float:
        """Returns the share of a principal."""
        return self._share(self._rows[principal], self._tokens[principal])

    def with_(self, ticket: Ticket) -> float:
        """Returns what the share of a ticket's principal would be if it had places for it."""
        rows, tokens = self._rows[ticket.principal], self._tokens[ticket.principal]
        return self._share(rows + ticket.num_generating, tokens + ticket.num_tokens)

    def without(self, ticket: Ticket) -> float:
        """Returns what the share of a ticket's principal would be if the ticket lost its places."""
        rows, tokens = self._rows[ticket.principal], self._tokens[ticket.principal]
        return self._share(rows - ticket.num_generating, tokens - ticket.num_tokens)

    def take(self, ticket: Ticket) -> None:
        """Takes the places of a ticket away."""
        self._rows[ticket.principal] -= ticket.num_generating
        self._tokens[ticket.principal] -= ticket.num_tokens

    def _share(self, rows: int, tokens: int) -> float:
        return max(rows / self._max_rows, tokens / self._max_tokens)
