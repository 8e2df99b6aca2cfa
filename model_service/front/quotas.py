"""What one caller may use of a model, beside what all may use together."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from model_service.front.engine_client.client import EngineClient
from rpc import identity
from rpc.errors import QuotaExceeded
from rpc.identity import Allowance

_MINUTE_S = 60.0

# When a generation of the caller may have ended, which nobody knows.
_RETRY_DELAY_S = 1.0


class Holding(Protocol):
    """What is kept for a caller: a session."""

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that it may take."""

    @property
    def idle_left_s(self) -> float:
        """Seconds until it ends if it is not used."""


class Quotas:
    """Bounds for each caller, and what it has of them. Used by the event loop only.

    Attributes:
        tokens: of prompts, steps and answers.
    """

    def __init__(
        self, engine: EngineClient, *, sessions: int, kv_percent: int, tokens_per_minute: int
    ) -> None:
        """Sets the bounds of callers that have none of their own; 0 means none.

        Args:
            engine: knows how large the KV cache is.
            sessions: open at a time.
            kv_percent: of the KV cache, for generations and sessions.
            tokens_per_minute: of prompts, steps and answers.
        """
        self.tokens = Allowance("tokens_per_minute", tokens_per_minute, _MINUTE_S)
        self._engine = engine
        self._sessions = sessions
        self._kv_percent = kv_percent
        self._generating: Counter[str] = Counter()  # tokens of KV cache

    def check_sessions(self, own: Collection[Holding], new: Collection[Holding]) -> None:
        """Checks that a caller may have more sessions.

        Args:
            own: those that it has.
            new: those that it asks for.

        Raises:
            QuotaExceeded: it may not.
        """
        limit = identity.quota("sessions", self._sessions)
        if limit and len(own) + len(new) > limit:
            delay_s = _next_end_s(own) if own and len(new) <= limit else None
            raise QuotaExceeded("sessions", limit, retry_delay_s=delay_s)
        self._check_kv(own, sum(session.kv_tokens for session in new))

    @contextmanager
    def generation(self, own: Collection[Holding], kv_tokens: int) -> Iterator[None]:
        """Counts the KV cache of a generation without a session while the block runs.

        Args:
            own: the caller's sessions.
            kv_tokens: that it reserves at most.

        Raises:
            QuotaExceeded: the caller may not have so much.
        """
        self._check_kv(own, kv_tokens)
        caller = identity.caller()
        self._generating[caller] += kv_tokens
        try:
            yield
        finally:
            self._generating[caller] -= kv_tokens
            if not self._generating[caller]:
                del self._generating[caller]

    def _check_kv(self, own: Collection[Holding], kv_tokens: int) -> None:
        percent = identity.quota("kv_percent", self._kv_percent)
        if not percent:
            return
        limit = self._engine.info.kv_total_tokens * percent // 100
        generating = self._generating[identity.caller()]
        held = generating + sum(session.kv_tokens for session in own)
        if kv_tokens > limit:
            raise QuotaExceeded("kv_percent", percent, retry_delay_s=None)
        if held + kv_tokens > limit:
            delay_s = _RETRY_DELAY_S if generating else _next_end_s(own)
            raise QuotaExceeded("kv_percent", percent, retry_delay_s=delay_s)


def _next_end_s(sessions: Collection[Holding]) -> float:
    """Returns in how many seconds the first of some sessions is closed if it is not used."""
    return max(_RETRY_DELAY_S, min(session.idle_left_s for session in sessions))
