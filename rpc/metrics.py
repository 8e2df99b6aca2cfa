"""The metrics of every RPC, under the names of go-grpc-prometheus.

Dashboards made for that family work unchanged. Labels come from closed sets:
whatever a scanner calls counts as one method named `other`.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from rpc import distribution, handlers, status, tracing
from rpc.handlers import Context, Continuation, Handler, Outcome

OTHER = "other"

# From half a millisecond, a cached tokenizer call, to an hour of a stream.
HANDLING_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0, 3600.0),
)
# 64 bytes to 64 MiB.
SIZE_BUCKETS_BYTES = (64, 256, *(4**i * 1024 for i in range(9)))

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_METHOD_ONLY = ("grpc_service", "grpc_method")
_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


# The moment in which each series was made: a second series for each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


def process_registry() -> CollectorRegistry:
    """Creates a registry that reports the process itself, for one server."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def build_info(registry: CollectorRegistry, metric: str, *libraries: str) -> None:
    """Shows our version, as `lockstep`, and those of libraries; `unknown` if not installed."""
    versions = {name: distribution.installed(name) for name in libraries}
    Info(metric, "Versions in use.", registry=registry).info(
        {"lockstep": distribution.installed(), **versions}
    )


@dataclass(frozen=True, slots=True)
class MethodMetrics:
    """The series of one method, looked up once."""

    labels: tuple[str, str, str]
    started: Counter
    received: Counter
    sent: Counter
    handling: Histogram
    in_flight: Gauge
    request_size: Histogram
    response_size: Histogram


class RpcMetrics:
    """The family. Every series of a known method exists from the start.

    So a rate is 0 before the first call, not absent.
    """

    def __init__(self, registry: CollectorRegistry, service_names: Sequence[str]) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = _METHOD) -> Counter:
            return Counter(f"grpc_server_{name}", text, labels, registry=registry)

        def sizes(name: str, text: str) -> Histogram:
            return Histogram(
                f"grpc_server_{name}",
                text,
                _METHOD_ONLY,
                buckets=SIZE_BUCKETS_BYTES,
                registry=registry,
            )

        self._started = counter("started_total", "RPCs started.")
        self._handled = counter(
            "handled_total", "RPCs completed, by code.", (*_METHOD, "grpc_code")
        )
        self._failed = Counter(
            "lockstep_calls_failed_total",
            "Failed RPCs, by the reason in their status.",
            ["reason"],
            registry=registry,
        )
        for _, reason in status.TABLE.values():
            self._failed.labels(reason)
        self._received = counter("msg_received_total", "Messages received.")
        self._sent = counter("msg_sent_total", "Messages sent.")
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "Time from the request to the end of the RPC.",
            _METHOD,
            buckets=HANDLING_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "grpc_server_in_flight", "RPCs in progress.", _METHOD_ONLY, registry=registry
        )
        self._request_size = sizes("request_size_bytes", "Size of each message received.")
        self._response_size = sizes("response_size_bytes", "Size of each message sent.")
        self._other = self._series((OTHER, OTHER, OTHER))
        self._known = {
            f"/{method.containing_service.full_name}/{method.name}": self._series(_labels(method))
            for name in service_names
            for method in descriptor_pool.Default().FindServiceByName(name).methods
        }

    def of(self, path: str) -> MethodMetrics:
        """Returns the series of a method, given as `/package.Service/Method`."""
        return self._known.get(path, self._other)

    def handled(self, method: MethodMetrics, ended: Outcome) -> None:
        """Counts a call that ended."""
        self._handled.labels(*method.labels, ended.code.name).inc()
        if ended.reason:
            self._failed.labels(ended.reason).inc()

    def _series(self, labels: tuple[str, str, str]) -> MethodMetrics:
        for code in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL):  # what alerts look at
            self._handled.labels(*labels, code.name)
        short = labels[1:]
        return MethodMetrics(
            labels=labels,
            started=self._started.labels(*labels),
            received=self._received.labels(*labels),
            sent=self._sent.labels(*labels),
            handling=self._handling.labels(*labels),
            in_flight=self._in_flight.labels(*short),
            request_size=self._request_size.labels(*short),
            response_size=self._response_size.labels(*short),
        )


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Counts and times every call, and measures its messages."""

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = self._metrics.of(handler_call_details.method)

        @asynccontextmanager
        async def measured(context: Context) -> AsyncIterator[None]:
            start = time.perf_counter()
            method.started.inc()
            error: BaseException | None = None
            with method.in_flight.track_inprogress():
                try:
                    yield
                except BaseException as caught:
                    error = caught
                    raise
                finally:
                    seconds = time.perf_counter() - start
                    method.handling.observe(seconds, tracing.exemplar(tracing.current()))
                    self._metrics.handled(method, handlers.outcome(context, error))

        return handlers.enclose(_measure_messages(handler, method), measured)


def _measure_messages(handler: Handler, method: MethodMetrics) -> Handler:
    decode, encode = handler.request_deserializer, handler.response_serializer

    def received(data: bytes) -> object:
        method.received.inc()
        method.request_size.observe(len(data))
        return decode(data) if decode else data

    def sent(response: object) -> bytes:
        data = encode(response) if encode else response
        assert isinstance(data, bytes), "The serializer made no bytes. This is a bug."
        method.sent.inc()
        method.response_size.observe(len(data))
        return data

    return handlers.with_codec(handler, received, sent)


def _labels(method: MethodDescriptor) -> tuple[str, str, str]:
    kind = _TYPES[method.client_streaming, method.server_streaming]
    return (kind, method.containing_service.full_name, method.name)
