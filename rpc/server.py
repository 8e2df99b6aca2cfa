"""A gRPC server with everything around it: health, metrics, TLS, drain, limits."""

import asyncio
import json
import signal
from collections.abc import Sequence

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge

from rpc.exposition import MetricsEndpoint
from rpc.health import Describe, HealthServicer
from rpc.identity import IdentityInterceptor
from rpc.interceptors import AdmissionInterceptor, ErrorInterceptor
from rpc.lifecycle import Lifecycle, Phase
from rpc.logging import AccessLogInterceptor
from rpc.metrics import MetricsInterceptor, RpcMetrics
from rpc.options import HEALTH_OPTIONS, server_options
from rpc.settings import ServerSettings
from rpc.tls import CertificateFiles

LIVENESS = "liveness"

# Time for the last bytes of calls that have just ended, and for handlers to clean
# up after those that were cancelled.
_FLUSH_S = 1.0
_CLEANUP_S = 5.0

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = structlog.stdlib.get_logger(__name__)


class Server:
    """Serves until it is told to stop. Create it, and use it, in one event loop.

    Calls are answered with `LOADING` until `set_ready(True)`, so a service can
    bind its ports before its model is there.

    Attributes:
        grpc: where servicers are registered, before `start`.
        lifecycle: whether new calls are taken, and how many run.
        port, health_port, metrics_port: the ports in use, after `start`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        registry: CollectorRegistry,
        service_names: Sequence[str],
    ) -> None:
        """Wires the server. Binds no port yet.

        Args:
            settings: the service's settings.
            registry: what `/metrics` shows; the metrics of RPCs are added to it.
            service_names: full names of the services that will be registered. Their
                modules must have been imported.
        """
        self._settings = settings
        self._registry = registry
        self._service_names = tuple(service_names)
        self.lifecycle = Lifecycle(settings.max_concurrent_calls)
        self.grpc = grpc.aio.server(
            interceptors=[  # outermost first
                AccessLogInterceptor(),
                MetricsInterceptor(RpcMetrics(registry, service_names)),
                ErrorInterceptor(
                    max_message_bytes=settings.max_message_bytes,
                    max_response_bytes=settings.max_response_bytes,
                ),
                AdmissionInterceptor(self.lifecycle),
                IdentityInterceptor(),
            ],
            options=server_options(settings),
        )
        if settings.reflection:
            _enable_reflection(self.grpc, self._service_names)
        self._health = HealthServicer()
        self._health_server = grpc.aio.server(options=HEALTH_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
        self._ready = Gauge(
            "lockstep_ready", "1 while the service takes calls.", ["service"], registry=registry
        )
        self._publications: set[asyncio.Task[None]] = set()
        self._stop_now = asyncio.Event()
        self._metrics: MetricsEndpoint | None = None
        self.port = self.health_port = self.metrics_port = 0

    async def start(self) -> None:
        """Binds the three ports, serves, and prints them as one JSON line on stdout.

        Raises:
            OSError: a port is taken, or a TLS file cannot be read.
            ssl.SSLError: the TLS files do not fit together.
        """
        self.port = self._bind_grpc()
        self.health_port = _bind(
            self._health_server, self._settings.host, self._settings.health_port, None
        )
        self._metrics = MetricsEndpoint(
            self._registry, self._settings.host, self._settings.metrics_port
        )
        self.metrics_port = self._metrics.port
        await self._health.set(LIVENESS, _SERVING)
        await self._publish()
        await self._health_server.start()
        await self.grpc.start()
        line = {
            "event": "listening",
            "service": self._settings.service,
            "host": self._settings.host,
            "port": self.port,
            "health_port": self.health_port,
            "metrics_port": self.metrics_port,
        }
        print(json.dumps(line), flush=True)
        _log.info("started", settings=self._settings.loggable())

    def set_ready(self, ready: bool) -> None:
        """Takes calls, or answers them with `LOADING`; health follows."""
        self.lifecycle.set_ready(ready)
        self._publish()

    def describe_health(self, describe: Describe) -> None:
        """Says beside the health status, as metadata, what the service returns here."""
        self._health.describe = describe

    def set_paused(self, paused: bool) -> None:
        """Reports `NOT_SERVING` while a service refuses new work by itself; calls still come."""
        self.lifecycle.paused = paused
        self._publish()

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self.lifecycle.phase is Phase.DRAINING

    def drain(self) -> None:
        """Begins to shut down, as SIGTERM does: running calls go on, new ones are refused."""
        self.lifecycle.drain()
        self._publish()
        _log.info("draining", running_calls=self.lifecycle.running)

    async def serve_until_stopped(self) -> None:
        """Serves until SIGTERM, SIGINT or `drain`, lets running calls finish, and stops.

        Returns when the calls have ended or `drain_timeout_s` is over, whichever is
        first, with all handlers cleaned up. A second signal stops at once.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self.lifecycle.draining.wait()
            await self._finish_calls()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            await self.stop(0 if self._stop_now.is_set() else _FLUSH_S)

    async def stop(self, grace_s: float = 0) -> None:
        """Refuses new calls, cancels running ones after `grace_s`, and closes the ports.

        Returns when every handler has cleaned up.
        """
        if not self.draining:
            self.drain()
        await self.grpc.stop(grace_s)
        try:
            # gRPC may be done before the handlers have run their `finally`.
            async with asyncio.timeout(_CLEANUP_S):
                await self.lifecycle.wait_idle()
        except TimeoutError:
            _log.error("calls left behind", running_calls=self.lifecycle.running)
        await self._health_server.stop(0)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
            self._metrics = None
        await asyncio.gather(*self._publications)

    def _on_signal(self) -> None:
        if self.draining:
            self._stop_now.set()
        else:
            self.drain()

    async def _finish_calls(self) -> None:
        waits = [
            asyncio.create_task(self.lifecycle.wait_idle()),
            asyncio.create_task(self._stop_now.wait()),
        ]
        _, pending = await asyncio.wait(
            waits, timeout=self._settings.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        _log.info("stopping", running_calls=self.lifecycle.running)

    def _bind_grpc(self) -> int:
        settings = self._settings
        credentials = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            files = CertificateFiles(
                settings.tls_certificate, settings.tls_key, settings.tls_client_ca
            )
            credentials = files.credentials()
        return _bind(self.grpc, settings.host, settings.port, credentials)

    def _publish(self) -> asyncio.Task[None]:
        """Tells Prometheus now, and probes soon, what the lifecycle says."""
        ready = self.lifecycle.phase is Phase.READY and not self.lifecycle.paused
        self._ready.labels(self._settings.service).set(ready)
        task = asyncio.get_running_loop().create_task(self._tell_probes(ready))
        self._publications.add(task)
        task.add_done_callback(self._publications.discard)
        return task

    async def _tell_probes(self, ready: bool) -> None:
        for name in (health.OVERALL_HEALTH, *self._service_names):
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)


def _bind(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}: the port is taken, or not ours") from None


def _enable_reflection(server: grpc.aio.Server, service_names: Sequence[str]) -> None:
    from grpc_reflection.v1alpha import reflection  # not needed in production

    reflection.enable_server_reflection((*service_names, reflection.SERVICE_NAME), server)
