"""Which trace a call belongs to, and what its spans tell.

Spans are made by `open_telemetry`, which is imported only where the variables of OpenTelemetry name
a collector. Without one, the trace id of a caller's `traceparent` names the call in the log and in
exemplars, and that is all.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf import descriptor_pool

from rpc import handlers
from rpc.handlers import Context, Continuation, Handler, Outcome

TRACE_KEY = "traceparent"

_TRACE = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_SAMPLED = 1

Attributes = Mapping[str, str | int | float | Sequence[str]]


@dataclass(frozen=True)
class Trace:
    """The trace of a call, of which this process records nothing.

    Attributes:
        trace_id: 32 hexadecimal digits.
        sampled: whether somebody keeps the trace.
    """

    trace_id: str
    sampled: bool

    @property
    def recorded(self) -> bool:
        """Whether this process makes spans for it."""
        return False

    def describe(self, attributes: Attributes) -> None:
        """Adds attributes to the span of the call."""

    def add(
        self, name: str, start_ns: int, end_ns: int, attributes: Attributes, error: str = ""
    ) -> None:
        """Adds a part of the call that is over, as a span below the call's.

        Args:
            name: what the part is.
            start_ns: when it began, in nanoseconds of Unix time.
            end_ns: when it ended.
            attributes: what else is known of it.
            error: why it failed, if it did.
        """

    def end(self, ended: Outcome) -> None:
        """Ends the span of the call that this code runs for."""


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """Returns the trace of the call that this code runs for; None where it has none."""
    return _current.get()


def exemplar(trace: Trace | None) -> dict[str, str] | None:
    """Returns what leads from an observation to its trace; None where nobody keeps the trace."""
    return {"trace_id": trace.trace_id} if trace is not None and trace.sampled else None


class Tracer(Protocol):
    """Makes spans."""

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace:
        """Begins the span of a call, in the trace of its caller or a new one.

        Args:
            method: `package.Service/Method`; empty for one that does not exist.
            metadata: what the caller sent.
        """

    def close(self) -> None:
        """Sends the last spans. Blocks, but not for long."""


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call its trace. Inside of the interceptor that writes the call's line."""

    def __init__(self, tracer: Tracer | None, service_names: Sequence[str]) -> None:
        """Takes part in traces.

        Args:
            tracer: makes the spans of calls; None for none.
            service_names: full names of what the server offers.
        """
        self._tracer = tracer
        self._methods = {
            f"{name}/{method.name}"
            for name in service_names
            for method in descriptor_pool.Default().FindServiceByName(name).methods
        }

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata)
        if handler is None or (self._tracer is None and TRACE_KEY not in metadata):
            return handler
        path = handler_call_details.method.removeprefix("/")

        @asynccontextmanager
        async def traced(context: Context) -> AsyncIterator[None]:
            trace = self._begin(path, metadata)
            if trace is None:
                yield
                return
            _current.set(trace)  # each call has a task of its own, so nothing is set back
            structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)
            error: BaseException | None = None
            try:
                yield
            except BaseException as caught:
                error = caught
                raise
            finally:
                trace.end(handlers.outcome(context, error))

        return handlers.enclose(handler, traced)

    def _begin(self, path: str, metadata: Mapping[str, Any]) -> Trace | None:
        if self._tracer is not None:
            return self._tracer.begin(path if path in self._methods else "", metadata)
        sent = metadata[TRACE_KEY]
        found = _TRACE.fullmatch(sent) if isinstance(sent, str) else None
        return None if found is None else Trace(found[1], bool(int(found[2], 16) & _SAMPLED))
