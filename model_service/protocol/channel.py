"""The socket and the shared ring between the front and the engine.

Frames are a 4-byte little-endian length and a msgpack message. Rows of logits
do not pass through the socket: the engine copies them into a ring of shared
memory and the message carries where they are. The ring needs no lock: only the
engine writes, only the front reads, and the front returns the number of bytes
it is done with in its next frame. A row that finds no room travels inline.

The ring has no name in any file system: it is a descriptor that the engine
inherits, so that nothing is left behind however either process ends, and the
small `/dev/shm` of containers does not limit it.
"""

import mmap
import os
import struct
import tempfile

import msgspec

from model_service.protocol import Commands, Message
from model_service.protocol.generation import Row, SharedRow

LENGTH = struct.Struct("<I")

encode = msgspec.msgpack.Encoder().encode
decode_commands = msgspec.msgpack.Decoder(Commands).decode
decode_message = msgspec.msgpack.Decoder(Message).decode


def frame(message: Commands | Message) -> bytes:
    """Encodes one frame, length included."""
    body = encode(message)
    return LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one partial frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the bodies of the frames that `data` completes, in order."""
        self._buffer += data
        bodies = []
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer, start)
            end = start + LENGTH.size + size
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return bodies


class RingWriter:
    """The engine's end of the ring.

    Positions count bytes ever written, so that empty and full are told apart;
    the place in memory is the position modulo the size.
    """

    def __init__(self, name: str) -> None:
        descriptor = os.open(name, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._size = len(self._memory)
        self._written = 0
        self._consumed = 0

    def put(self, row: memoryview) -> Row:
        """Copies a row in, or returns its bytes if the ring has no room.

        Args:
            row: contiguous bytes of one row.
        """
        start = self._written
        place = start % self._size
        if place + row.nbytes > self._size:  # rows are not split: skip the tail
            start += self._size - place
            place = 0
        if start + row.nbytes - self._consumed > self._size:
            return bytes(row)
        self._memory[place : place + row.nbytes] = row
        self._written = start + row.nbytes
        return SharedRow(start=start, size=row.nbytes)

    def release(self, consumed: int) -> None:
        """Notes how far the front has read."""
        self._consumed = max(self._consumed, consumed)

    def close(self) -> None:
        """Unmaps the ring."""
        self._memory.close()


class RingReader:
    """The front's end of the ring, which also owns the memory.

    Attributes:
        name: what `RingWriter` is opened with, in this process and in one that
            inherits `descriptor`.
        descriptor: the ring's file descriptor, to be inherited by the engine.
        size: bytes.
        consumed: bytes that may be overwritten; sent with every frame.
    """

    def __init__(self, size_bytes: int) -> None:
        self.descriptor = _anonymous_file()
        os.ftruncate(self.descriptor, size_bytes)
        self._memory = mmap.mmap(self.descriptor, size_bytes)
        self.size = size_bytes
        self.name = f"/dev/fd/{self.descriptor}"
        self.consumed = 0

    def take(self, row: Row) -> bytes:
        """Returns the bytes of a row and marks them as read. Rows are taken in order."""
        if isinstance(row, bytes):
            return row
        place = row.start % self.size
        data = self._memory[place : place + row.size]
        self.skip(row)
        return data

    def skip(self, row: Row) -> None:
        """Marks a row as read that is no longer wanted."""
        if not isinstance(row, bytes):
            self.consumed = max(self.consumed, row.start + row.size)

    def close(self) -> None:
        """Unmaps the ring, whose memory goes when the engine has unmapped it too."""
        self._memory.close()
        os.close(self.descriptor)


def _anonymous_file() -> int:
    """Opens a file without a name; in memory where the platform can (Linux)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lockstep-ring")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
