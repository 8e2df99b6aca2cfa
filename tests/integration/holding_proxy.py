"""A TCP proxy that holds bytes back for as long as a test wants."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 2**16


class HoldingProxy:
    """Passes connections on to one address, and nothing at all while it holds.

    Attributes:
        address: where it listens.
        num_connections: accepted so far.
    """

    def __init__(self, target: str) -> None:
        self.lead_to(target)
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()  # of the two below
        self._sockets: list[socket.socket] = []
        self._closed = False
        self.address = f"localhost:{self._listener.getsockname()[1]}"
        self.num_connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, target: str) -> None:
        """Passes connections that come from now on to another address."""
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))

    def hold(self) -> None:
        """Holds back what comes from now on, in both directions, as a dead wire does."""
        self._flowing.clear()

    def release(self) -> None:
        """Passes on what was held back, and what comes."""
        self._flowing.set()

    def cut(self) -> None:
        """Closes every connection."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """Stops listening, and closes every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        with self._lock:
            self._closed = True
        self._flowing.set()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                inner, _ = self._listener.accept()
                self.num_connections += 1
                threading.Thread(target=self._connect, args=(inner,), daemon=True).start()

    def _connect(self, inner: socket.socket) -> None:
        self._flowing.wait()
        try:
            outer = socket.create_connection(self._target)
        except OSError:
            inner.close()
            return
        with self._lock:
            if not self._closed:
                self._sockets += [inner, outer]
        if self._closed:
            inner.close()
            outer.close()
            return
        for pair in ((inner, outer), (outer, inner)):
            threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def holding_proxy(target: str) -> Iterator[HoldingProxy]:
    """Runs a proxy before `host:port`."""
    proxy = HoldingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
