"""A large response, serialized part by part.

As objects, the rows of an `EncodeResponse` take ten times the bytes that are sent, and
serializing them at once keeps the interpreter for half a second. Part by part neither
happens, and a response that is too large is noticed before the work on it is done.
"""

from collections.abc import Iterable
from typing import AnyStr

from google.protobuf.message import Message

from rpc.errors import ResponseTooLarge
from rpc.handlers import Serialized
from tokenizer_service.worker_pool import Pieces

_WAY_OUT = "Send fewer items at once, or ask for less about each."


class LargeResponse:
    """The bytes of one response so far. Not safe for use from two threads."""

    def __init__(self, limit_bytes: int) -> None:
        """Starts an empty response.

        Args:
            limit_bytes: the largest response that is sent.
        """
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._num_bytes = 0

    def append(self, part: Message) -> None:
        """Adds a response that holds only some entries of its repeated fields.

        On the wire, repeated fields are one entry after another, so the bytes of such
        responses in a row are those of one with all entries.

        Raises:
            ResponseTooLarge: the response has become too large.
        """
        data = part.SerializeToString()
        self._parts.append(data)
        self.count(len(data))

    def count(self, num_bytes: int) -> None:
        """Adds to the size what is kept elsewhere and given to `joined`.

        Raises:
            ResponseTooLarge: the response has become too large.
        """
        self._check(num_bytes)
        self._num_bytes += num_bytes

    def collect(self, pieces: Iterable[AnyStr], empty: AnyStr, beside: int = 0) -> Pieces[AnyStr]:
        """Joins the pieces of a text that is to be a part, and stops between two.

        Args:
            pieces: the pieces.
            empty: the text of no pieces.
            beside: bytes of what else is in the part.

        Raises:
            ResponseTooLarge: the response would become too large with it.
        """
        collected = []
        length = beside
        for piece in pieces:
            collected.append(piece)
            length += len(piece)  # a character has at least a byte
            self._check(length)
            yield
        return empty.join(collected)

    def joined(self, rest: Message) -> Serialized:
        """Returns the whole response.

        Args:
            rest: what was not appended.
        """
        return Serialized(b"".join([rest.SerializeToString(), *self._parts]))

    def _check(self, num_bytes: int) -> None:
        size = self._num_bytes + num_bytes
        if size > self._limit_bytes:
            raise ResponseTooLarge(size, self._limit_bytes, _WAY_OUT, at_least=True)
