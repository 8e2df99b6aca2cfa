"""`GET /metrics` over HTTP, in threads of its own, so that a busy loop still answers."""

import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, MetricsHandler

from rpc.errors import PermissionDenied, ServiceError, Unauthenticated

# How soon `close` is noticed.
_POLL_S = 0.1
# Each has a thread. The next one takes the place of the oldest, so that clients who
# connect and say nothing do not keep Prometheus out.
_MAX_CONNECTIONS = 16
_SILENCE_S = 10
# How many wait to be accepted. The kernel turns away who comes when these places are taken,
# and that client asks again after a second, then two, then four.
_BACKLOG = 128

Check = Callable[[Sequence[str]], None]
"""Raises Unauthenticated or PermissionDenied for values of the header `Authorization`."""

_log = structlog.stdlib.get_logger(__name__)


class MetricsEndpoint:
    """Serves a registry until it is closed.

    Attributes:
        port: the port in use.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int, check: Check) -> None:
        """Binds the port and begins to serve.

        Args:
            registry: what is served.
            host: address to listen on.
            port: 0 picks a free one.
            check: raises what keeps a caller from it.

        Raises:
            OSError: the port is taken.
        """
        server = _Server6 if ":" in host else _Server4
        try:
            members = {"registry": registry, "check": staticmethod(check)}
            self._http = server((host, port), type("_Checked", (_Handler,), members))
        except OSError as error:
            raise OSError(f"cannot listen on port {port} for metrics: {error.strerror}") from None
        self.port: int = self._http.server_address[1]
        self._thread = Thread(
            target=self._http.serve_forever, args=(_POLL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops serving and frees the port. Blocks for a moment."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(MetricsHandler):
    timeout = _SILENCE_S  # for a client that says nothing, or does not read
    check: Check

    def do_GET(self) -> None:
        try:
            self.check(self.headers.get_all("Authorization", []))
        except Unauthenticated as error:
            self._refuse(HTTPStatus.UNAUTHORIZED, error)
        except PermissionDenied as error:
            self._refuse(HTTPStatus.FORBIDDEN, error)
        else:
            super().do_GET()

    def _refuse(self, status: HTTPStatus, error: ServiceError) -> None:
        self.send_response(status)
        self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(f"{error}\n".encode())


class _Server4(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, *arguments: Any) -> None:
        self._connections: dict[socket.socket, None] = {}  # oldest first
        self._lock = Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= _MAX_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with suppress(OSError):  # it is going by itself
                    oldest.shutdown(socket.SHUT_RDWR)
            self._connections[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs a failure, where the base class would print a traceback."""
        error = sys.exception()
        if not isinstance(error, OSError):  # the client is gone, or does not read
            _log.error("metrics not served", exc_info=error)


class _Server6(_Server4):
    address_family = socket.AF_INET6
