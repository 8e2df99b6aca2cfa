"""The spans of calls, made and sent by OpenTelemetry, whose packages the extra `otel` brings."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from threading import Thread
from typing import Any

import grpc
from opentelemetry import propagate
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from rpc import logging
from rpc.distribution import installed
from rpc.handlers import Outcome
from rpc.tracing import Attributes, Trace

# As the conventions of OpenTelemetry call what a call's line of the log has too; its other fields
# keep their names, behind `lockstep.`.
_NAMES = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "generated_tokens": "gen_ai.usage.output_tokens",
}
_OTHER = "_OTHER"

# The codes that the conventions hold the server responsible for.
_FAULTS = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)

# How long the end of a process waits for a collector that does not take the last spans.
_FLUSH_S = 2.0


@dataclass(frozen=True)
class RecordedTrace(Trace):
    """The trace of a call that has a span.

    Attributes:
        span: the span.
        tracer: makes those below it.
    """

    span: Span
    tracer: Tracer

    @property
    def recorded(self) -> bool:
        return True

    def describe(self, attributes: Attributes) -> None:
        self.span.set_attributes(attributes)

    def add(
        self, name: str, start_ns: int, end_ns: int, attributes: Attributes, error: str = ""
    ) -> None:
        parent = set_span_in_context(self.span)
        span = self.tracer.start_span(name, parent, attributes=attributes, start_time=start_ns)
        if error:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR, error)
        span.end(end_ns)

    def end(self, ended: Outcome) -> None:
        span, fields = self.span, {"request_id": logging.request_id(), **logging.noted()}
        span.set_attributes(
            {_NAMES.get(name, f"lockstep.{name}"): value for name, value in fields.items()}
        )
        span.set_attribute("rpc.response.status_code", ended.code.name)
        if ended.code is not grpc.StatusCode.OK:
            error = ended.reason or ended.code.name
            span.set_attribute("error.type", error)
            if ended.code in _FAULTS:
                span.set_status(StatusCode.ERROR, error)
        span.end()


class SpanTracer:
    """Makes the spans of calls, and sends them to a collector."""

    def __init__(self, exporter: str, service: str) -> None:
        """Reads the variables of OpenTelemetry.

        Args:
            exporter: the name that the exporter is installed under.
            service: name of the service where the variables do not name it.

        Raises:
            LookupError: no such exporter is installed.
        """
        found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=exporter)), None)
        if found is None:
            raise LookupError(f"the exporter {exporter} is not installed")
        ours = Resource.create({"service.name": service, "service.version": installed()})
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        self._provider.add_span_processor(BatchSpanProcessor(found.load()()))
        self._tracer = self._provider.get_tracer("lockstep", installed())

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace:
        """See `tracing.Tracer`."""
        name = method or _OTHER
        span = self._tracer.start_span(
            name,
            propagate.extract(metadata),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": name},
        )
        context = span.get_span_context()
        ids = (format_trace_id(context.trace_id), context.trace_flags.sampled)
        return RecordedTrace(*ids, span, self._tracer) if span.is_recording() else Trace(*ids)

    def close(self) -> None:
        """See `tracing.Tracer`."""
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FLUSH_S)
