"""`GET /metrics` over HTTP, in a thread of its own, so that a busy loop still answers."""

import socket
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

# How soon `close` is noticed.
_POLL_S = 0.1


class MetricsEndpoint:
    """Serves a registry until it is closed.

    Attributes:
        port: the port in use.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Binds the port and begins to serve.

        Raises:
            OSError: the port is taken.
        """
        server = _Server6 if ":" in host else _Server4
        try:
            self._http = server((host, port), _Handler)
        except OSError as error:
            raise OSError(f"cannot listen on port {port} for metrics: {error.strerror}") from None
        self._http.set_app(make_wsgi_app(registry))
        self.port = self._http.server_port
        self._thread = Thread(
            target=self._http.serve_forever, args=(_POLL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops serving and frees the port. Blocks for a moment."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds, for a client that connects and says nothing

    def log_message(self, format: str, *args: object) -> None:
        """Keeps scrapes out of the log."""


class _Server4(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server4):
    address_family = socket.AF_INET6
