"""Sessions, and each of their steps, whether it came alone or in a stream."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from model_service.front.metrics.families import Families
from rpc import logging, tracing

LIFETIME_BUCKETS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200)

CloseReason = Literal["client", "idle_timeout", "error"]
StepMethod = Literal["step", "step_stream"]


class SessionMetrics:
    """Recorded by the registry of sessions and by their calls."""

    def __init__(self, families: Families) -> None:
        self._sessions = families.gauges("sessions", "Open sessions.", state=("active", "idle"))
        self._opened = families.counter("sessions_opened_total", "Sessions opened.")
        self._closed = families.counters(
            "sessions_closed_total", "Sessions closed.", reason=get_args(CloseReason)
        )
        self._lifetime = families.histogram(
            "session_lifetime_seconds", "Time from open to close.", LIFETIME_BUCKETS_S
        )
        self._steps = families.histograms(
            "session_step_seconds",
            "Time from a step's message to its answer, of those that were answered.",
            method=get_args(StepMethod),
        )
        self._step_tokens = families.counter(
            "session_step_tokens_total", "Tokens that steps gave to rows of sessions."
        )

    def open(self, active: int, idle: int) -> None:
        """Notes how many sessions there are."""
        self._sessions.of("active").set(active)
        self._sessions.of("idle").set(idle)

    def opened(self) -> None:
        """Counts a session."""
        self._opened.inc()

    def closed(self, reason: CloseReason, lifetime_s: float) -> None:
        """Records the end of a session."""
        self._closed.of(reason).inc()
        self._lifetime.observe(lifetime_s)

    @contextmanager
    def step(self, method: StepMethod) -> Iterator[None]:
        """Times the block as a step, if it ends well."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._steps.of(method).observe(seconds, tracing.exemplar(tracing.current()))

    def stepped(self, num_tokens: int) -> None:
        """Counts the tokens that a step gave, also for its call's line of the log."""
        logging.count(steps=1, step_tokens=num_tokens)
        self._step_tokens.inc(num_tokens)
