"""A peer that takes a call, says GOAWAY without having looked at it, and is gone.

Of a call that a peer has not looked at, gRPC makes a second attempt by itself. It
finds nobody, which is where gRPC forgets whoever reads the call's stream, see
grpc/grpc#41036. A server of gRPC's own does so by chance, when it is stopped as a
call arrives.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFACE_BYTES = 24
HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7
ACKNOWLEDGED = 1
READING_S = 0.3
"""How long after a call its caller reads for sure, so that there is a reader to forget."""


def _frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    """Builds an HTTP/2 frame that concerns the whole connection."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload


def _serve(listener: socket.socket, then: str | None) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as received:
        received.read(PREFACE_BYTES)
        connection.sendall(_frame(SETTINGS))
        while len(header := received.read(9)) == 9:
            size, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
            payload = received.read(size)
            if kind in {SETTINGS, PING} and not flags & ACKNOWLEDGED:
                answer = payload if kind == PING else b""
                connection.sendall(_frame(kind, ACKNOWLEDGED, answer))
            if kind == HEADERS:
                if then is None:
                    listener.close()
                time.sleep(READING_S)
                last_stream_looked_at, no_error = 0, 0
                goaway = struct.pack(">II", last_stream_looked_at, no_error)
                connection.sendall(_frame(GOAWAY, payload=goaway))
                return


def _pass_on(inner: socket.socket, target: str) -> None:
    host, port = target.rsplit(":", 1)
    outer = socket.create_connection((host, int(port)))
    for pair in ((inner, outer), (outer, inner)):
        threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError), source:
        while data := source.recv(2**16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def leaving_peer(then: str | None = None, num_passed: int = 0) -> Iterator[str]:
    """Listens for one call, and yields the address.

    Args:
        then: what listens there afterwards (`host:port`); nothing if None.
        num_passed: connections before that call's, which `then` gets too.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the test is over
            for _ in range(num_passed):
                _pass_on(listener.accept()[0], then)
            _serve(listener, then)
            while then is not None:
                _pass_on(listener.accept()[0], then)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        listener.close()
