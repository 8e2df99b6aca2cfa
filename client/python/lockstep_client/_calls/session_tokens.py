"""Which replica has the sessions that generations of a client have left behind. Pure: no I/O."""

from typing import Final

from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._transport.route import Route

MOST_TOKENS: Final = 1024
"""Tokens of as many sessions are remembered."""


class SessionTokens:
    """Tokens by the names of sessions. Threads may share it."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}

    def keep(self, assembler: GenerationAssembler, route: Route) -> None:
        """Takes the token of the session that a complete generation has left behind, if any."""
        session_id = assembler.session_id
        if session_id and route.token:
            self._tokens[session_id] = route.token
            while len(self._tokens) > MOST_TOKENS:
                self._tokens.pop(next(iter(self._tokens)), None)

    def get(self, session_id: str) -> str:
        """Returns the token of a session, and nothing where none is known."""
        return self._tokens.get(session_id, "")
