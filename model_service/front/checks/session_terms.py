"""What a session may ask for, and what it gets unless it asks."""

import secrets
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from wire import times
from wire.violations import Violations

MIN_TTL_S = 1.0


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """The server's terms.

    Attributes:
        ttl_s: idle time of a session that asks for none.
        max_ttl_s: longest idle time that can be asked for.
        new_tokens: room beyond what is needed in a session that asks for no length.
    """

    ttl_s: float
    max_ttl_s: float
    new_tokens: int

    def read_ttl(self, ttl: Duration, violations: Violations, field: str = "ttl") -> float:
        """Reads an idle time, in seconds.

        Args:
            ttl: the idle time asked for.
            violations: what is wrong is noted here.
            field: its path in the request.
        """
        ttl_s = times.seconds(ttl)
        if not MIN_TTL_S <= ttl_s <= self.max_ttl_s:
            bounds = f"[{MIN_TTL_S:g} s, {self.max_ttl_s:g} s]"
            violations.add(field, f"must be in {bounds}, with {times.NANOS}")
        return ttl_s

    def room(self, num_tokens: int, context_length: int) -> int:
        """Returns how many tokens a row gets that needs room for `num_tokens`."""
        return max(num_tokens, min(num_tokens + self.new_tokens, context_length))


def new_session_id() -> str:
    """Returns a name that cannot be guessed: 128 random bits."""
    return secrets.token_urlsafe(16)
