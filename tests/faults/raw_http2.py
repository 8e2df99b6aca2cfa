"""Calls written by hand, frame by frame, for what no gRPC client does."""

import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, ACKNOWLEDGED, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, CANCEL = 4, 8

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FIRST_STREAM = 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload
    )


def _header(name: str, value: str) -> bytes:
    """Writes a header as a literal that is not indexed (HPACK, RFC 7541, 6.2.2)."""
    parts = (name.encode(), value.encode())
    assert all(len(part) < 127 for part in parts)
    return b"\x00" + b"".join(bytes([len(part)]) + part for part in parts)


class RawCall:
    """A connection with one call on it, of which nothing is read unless it is asked for."""

    def __init__(
        self, address: str, path: str, message: bytes, *, window: int = 2**16 - 1, ends: bool = True
    ) -> None:
        """Connects and sends a request.

        Args:
            address: `host:port`.
            path: `/package.Service/Method`.
            message: the request.
            window: bytes that the service may send of its answer.
            ends: whether this is the last request.
        """
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": address,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(_header(name, value) for name, value in headers.items())
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self.socket.sendall(
            _PREFACE
            + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))
            + _frame(SETTINGS, ACKNOWLEDGED, 0, b"")
            + _frame(HEADERS, END_HEADERS, _FIRST_STREAM, block)
            + _frame(DATA, END_STREAM if ends else 0, _FIRST_STREAM, body)
        )

    def read_some(self) -> bytes:
        """Waits for bytes of the connection; none when it has ended."""
        return self.socket.recv(2**16)

    def reset_stream(self) -> None:
        """Cancels the call, and keeps the connection."""
        self.socket.sendall(_frame(RST_STREAM, 0, _FIRST_STREAM, struct.pack(">I", CANCEL)))

    def reset_connection(self) -> None:
        """Ends the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()
