"""A collector of spans: OpenTelemetry's own protocol over gRPC, kept in memory."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

WAIT_S = 20.0


@dataclass(frozen=True)
class Span:
    """A span as a backend of traces has it."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, object]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.address = ""
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def Export(self, request, context):
        with self._lock:
            for sender in request.resource_spans:
                service = _values(sender.resource.attributes)["service.name"]
                self._spans += [
                    _span(service, s) for each in sender.scope_spans for s in each.spans
                ]
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process send its spans here, soon."""
        endpoint = f"http://{self.address}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def wait_for(self, count: int, **wanted: object) -> list[Span]:
        """Waits for spans with these attributes of `Span`; returns them, oldest first."""
        deadline = time.monotonic() + WAIT_S
        while True:
            found = [s for s in self.spans if all(getattr(s, k) == v for k, v in wanted.items())]
            if len(found) >= count:
                return sorted(found, key=lambda span: span.start_ns)
            assert time.monotonic() < deadline, (wanted, found)
            time.sleep(0.02)

    def tree(self, trace_id: str, num_spans: int) -> list[object]:
        """Waits for the spans of a trace; returns its names, each with those below it."""
        spans = self.wait_for(num_spans, trace_id=trace_id)
        ids = {span.span_id for span in spans}

        def below(parent: str | None) -> list[object]:
            found = [s for s in spans if (s.parent_id if s.parent_id in ids else None) == parent]
            return [(f"{s.service}: {s.name}", below(s.span_id)) for s in found]

        return below(None)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector on a free port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(1).wait()


def _span(service: object, span: trace_pb2.Span) -> Span:
    return Span(
        service=str(service),
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
    )


def _values(attributes: list[KeyValue]) -> dict[str, object]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
