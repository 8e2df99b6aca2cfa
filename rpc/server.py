"""A gRPC server with everything around it: health, metrics, TLS, drain, limits."""

import asyncio
import json
import math
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import cast

import grpc
import structlog
from prometheus_client import CollectorRegistry, Gauge

from rpc.exposition import MetricsEndpoint
from rpc.health import Describe, HealthServer
from rpc.identity import Role
from rpc.identity.authenticator import Authenticator
from rpc.identity.interceptor import IdentityInterceptor
from rpc.identity.principals import Principals
from rpc.identity.roles import check_policy
from rpc.identity.watched_file import WatchedFile
from rpc.identity.web_tokens import TokenIssuer
from rpc.interceptors import AdmissionInterceptor, CheckRoom, ErrorInterceptor
from rpc.lifecycle import Lifecycle, Phase
from rpc.logging import AccessLogInterceptor
from rpc.metrics import MetricsInterceptor, RpcMetrics
from rpc.options import server_options
from rpc.ports import GrpcPorts, bind
from rpc.settings import ServerSettings
from rpc.tls import CertificateFiles
from rpc.tracing import Tracer, TracingInterceptor

# Time for handlers to clean up after a call that was ended, and for the last answers
# to be sent: to callers that read slowly, and to those who go on calling.
_CLEANUP_S = 5.0
_FLUSH_S = 1.0
_POLL_S = 0.05

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
        tracer: Tracer | None = None,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        check_room: CheckRoom = lambda method: None,
        continuing: Collection[str] = (),
        expects_calls: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wires the server. Binds no port yet.

        Args:
            settings: the service's settings.
            registry: what `/metrics` shows; the metrics of RPCs are added to it.
            service_names: full names of the services that will be registered. Their
                modules must have been imported.
            tracer: makes the spans of calls; None for none.
            interceptors: the service's own, which see admitted calls only.
            check_room: raises the refusal of a call for which there is no room, given its path.
                Nothing of the call is read before.
            continuing: paths, `/package.Service/Method`, of methods that go on with what the
                server holds for a caller. They are answered while it drains.
            expects_calls: says whether more of these are worth waiting for when none runs.

        Raises:
            OSError: a file that identifies callers cannot be read.
            PolicyError: a method has no role.
        """
        check_policy(service_names)
        self._settings = settings
        self._tracer = tracer
        self._registry = registry
        self._service_names = tuple(service_names)
        self._check_room = check_room
        self._continuing = frozenset(continuing)
        self._expects_calls = expects_calls
        self.lifecycle = Lifecycle(settings.max_concurrent_calls)
        self._authenticator = _authenticator(settings)
        self._interceptors = tuple(interceptors)
        self._rpc_metrics = RpcMetrics(registry, service_names)
        self._ports = GrpcPorts(settings, self._service_names, self._make_grpc_server)
        self.grpc = cast(grpc.aio.Server, self._ports)  # as far as generated code uses one
        self._health = HealthServer(service_names)
        self._ready = Gauge(
            "lockstep_ready", "1 while the service takes calls.", ["service"], registry=registry
        )
        self._certificate_expiry = Gauge(
            "lockstep_certificate_expiry_timestamp_seconds",
            "When the certificate of the service expires, in Unix time; NaN without TLS.",
            ["service"],
            registry=registry,
        ).labels(settings.service)
        self._certificate_expiry.set(math.nan)
        self._open = Gauge(
            "lockstep_open_to_anyone",
            "1 if other machines may reach the service and nothing identifies callers.",
            ["service"],
            registry=registry,
        ).labels(settings.service)
        self._open.set(settings.is_public and not settings.identifies_callers)
        self._stop_now = asyncio.Event()
        self._metrics: MetricsEndpoint | None = None
        self.port = self.health_port = self.metrics_port = 0

    async def start(self) -> None:
        """Binds the ports, serves, and prints them as one JSON line on stdout.

        Raises:
            OSError: a port is taken, or a TLS file cannot be read.
            ssl.SSLError: the TLS files do not fit together.
        """
        settings = self._settings
        self._ports.bind(self._credentials())
        self.port = self._ports.port
        self.health_port = bind(self._health.grpc, settings.host, settings.health_port, None)
        self._metrics = MetricsEndpoint(
            self._registry, settings.host, settings.metrics_port, self._check_scrape
        )
        self.metrics_port = self._metrics.port
        self._publish()
        self._health.start()
        await self._ports.start()
        line = {
            "event": "listening",
            "service": settings.service,
            "host": settings.host,
            "port": self.port,
            "health_port": self.health_port,
            "metrics_port": self.metrics_port,
        }
        if self._ports.admin_port is not None:
            line["admin_port"] = self._ports.admin_port
        print(json.dumps(line), flush=True)
        _log.info("started", settings=settings.loggable())
        self._warn_of_strangers()

    def set_ready(self, ready: bool) -> None:
        """Takes calls, or answers them with `LOADING`; health follows."""
        self.lifecycle.set_ready(ready)
        self._publish()

    def describe_health(self, describe: Describe) -> None:
        """Sends what the service returns here with the health status, as metadata."""
        self._health.describe(describe)

    def set_withheld(self, reason: str, withheld: bool) -> None:
        """Reports `NOT_SERVING` as long as there is a reason to; calls still come."""
        if withheld:
            self.lifecycle.withheld.add(reason)
        else:
            self.lifecycle.withheld.discard(reason)
        self._publish()

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self.lifecycle.phase is Phase.DRAINING

    def drain(self) -> None:
        """Begins to shut down, as SIGTERM does: what is begun goes on, new work is refused."""
        self.lifecycle.drain(self._settings.drain_timeout_s)
        self._publish()
        _log.info("draining", running_calls=self.lifecycle.running)

    async def serve_until_stopped(self) -> None:
        """Serves until SIGTERM, SIGINT or `drain`, and lets running calls finish.

        Calls that still run after `drain_timeout_s`, or when a second signal comes, are
        ended with `DRAINING`. The server goes on refusing calls when this returns: see
        `program.run`, which ends the process then.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        await self.lifecycle.draining.wait()
        await self._finish_calls()
        await self._end_calls()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self.lifecycle.wait_quiet()
        await self._send_spans()

    async def stop(self) -> None:
        """Refuses new calls, ends running ones with `DRAINING`, and closes the ports.

        For a process that goes on. A call that arrives in this moment gets CANCELLED.
        Returns when every handler has cleaned up.
        """
        if not self.draining:
            self.drain()
        await self._end_calls()
        await self._ports.stop(_FLUSH_S)
        await self._health.stop()
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
            self._metrics = None
        await self._send_spans()

    def _on_signal(self) -> None:
        if self.draining:
            self._stop_now.set()
        else:
            self.drain()

    async def _finish_calls(self) -> None:
        waits = [
            asyncio.create_task(self._wait_unneeded()),
            asyncio.create_task(self._stop_now.wait()),
        ]
        _, pending = await asyncio.wait(
            waits, timeout=self._settings.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        _log.info("stopping", running_calls=self.lifecycle.running)

    async def _wait_unneeded(self) -> None:
        """Returns when no call runs and none is expected."""
        await self.lifecycle.wait_idle()
        while self._expects_calls():
            await asyncio.sleep(_POLL_S)
            await self.lifecycle.wait_idle()

    async def _end_calls(self) -> None:
        """Ends what still runs, and waits until the handlers have cleaned up."""
        self.lifecycle.end_calls()
        try:
            async with asyncio.timeout(_CLEANUP_S):
                await self.lifecycle.wait_idle()
        except TimeoutError:
            _log.error("calls left behind", running_calls=self.lifecycle.running)

    async def _send_spans(self) -> None:
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def _make_grpc_server(self, offered: Sequence[str]) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            interceptors=[  # outermost first
                AccessLogInterceptor(),
                TracingInterceptor(self._tracer, offered),
                MetricsInterceptor(self._rpc_metrics),
                ErrorInterceptor(
                    max_message_bytes=settings.max_message_bytes,
                    max_response_bytes=settings.max_response_bytes,
                    services=offered,
                    hides_admins=len(offered) < len(self._service_names),
                ),
                IdentityInterceptor(
                    self._authenticator, by_certificate=settings.tls_client_ca is not None
                ),
                AdmissionInterceptor(self.lifecycle, self._check_room, self._continuing),
                *self._interceptors,
            ],
            options=server_options(settings),
        )
        if settings.reflection:
            _enable_reflection(server, offered)
        return server

    def _credentials(self) -> grpc.ServerCredentials | None:
        settings = self._settings
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        files = CertificateFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        self._certificate_expiry.set_function(files.expires_at)
        return files.credentials()

    def _check_scrape(self, authorization: Sequence[str]) -> None:
        """Raises Unauthenticated or PermissionDenied for who may not read the metrics."""
        authenticator = self._authenticator
        found = authenticator.of_token(authorization) or authenticator.anonymous
        found.require(Role.METRICS)

    def _warn_of_strangers(self) -> None:
        """Says in the log how a service is open that other machines may reach."""
        settings = self._settings
        if not settings.is_public:
            return
        if not settings.identifies_callers:
            roles = ", ".join(sorted(settings.anonymous_roles)) or "none"
            _log.warning(
                "open_to_anyone",
                host=settings.host,
                roles=roles,
                reason=f"Whoever reaches these ports has the roles: {roles}.",
                remedy="Identify callers with --principals, --jwt-keys or --tls-client-ca; say with"
                " --allow-anonymous what those without credentials may do; see docs/security.md.",
            )
        elif settings.tls_certificate is None:
            _log.warning(
                "tokens_in_plain_text",
                host=settings.host,
                remedy="Set --tls-certificate and --tls-key, unless a proxy on this machine ends "
                "TLS: who reads a token on its way can use it.",
            )

    def _publish(self) -> None:
        """Tells Prometheus and probes what the lifecycle says."""
        ready = self.lifecycle.phase is Phase.READY and not self.lifecycle.withheld
        self._ready.labels(self._settings.service).set(ready)
        self._health.set_ready(ready)


def _enable_reflection(server: grpc.aio.Server, service_names: Sequence[str]) -> None:
    from grpc_reflection.v1alpha import reflection  # not needed in production

    reflection.enable_server_reflection((*service_names, reflection.SERVICE_NAME), server)


def _authenticator(settings: ServerSettings) -> Authenticator:
    principals, issuer = None, None
    if settings.principals is not None:
        principals = WatchedFile(settings.principals, Principals.read)
    if settings.jwt_keys is not None:
        issuer = TokenIssuer(
            settings.jwt_keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            roles_claim=settings.jwt_roles_claim,
        )
    return Authenticator(principals, issuer, settings.anonymous_roles)
