# Generated from _async/streams.py by `make client`.
"""Running calls that give items one by one, and a result in the end, blocking."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, Self, TypeVar

from lockstep_client._calls.argument import Argument
from lockstep_client._transport.request_id import OneRequest
from lockstep_client._values.one_line import described

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stream(Iterator[Item], Generic[Item, Result]):
    """Items of a running call.

    The call starts with the first item that is asked for. It is cancelled, and
    the server frees what it holds, when the stream is closed: explicitly, by
    leaving a `with` block, or by dropping the stream.
    """

    def __init__(self, items: Generator[Item], result: Callable[[], Result]) -> None:
        self._items = items
        self._result = result
        self._ended = False
        self._count = 0

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running" if self._count else "not begun"
        return described(self, f"{state}, {self._count} items read")

    def __next__(self) -> Item:
        try:
            item = next(self._items)
        except StopIteration:
            self._ended = True
            raise
        self._count += 1
        return item

    @property
    def result(self) -> Result:
        """The result, once every item was read.

        Raises:
            RuntimeError: not every item was read.
            ProtocolError: the service ended the stream too early.
        """
        if not self._ended:
            raise RuntimeError("The result is there once every item of the stream was read.")
        return self._result()

    def close(self) -> None:
        """Cancels what is still running."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def in_one_request(name: str, items: Generator[Item], given: Argument) -> Generator[Item]:
    """Yields the items, and makes the calls that each needs part of one request.

    Args:
        name: what the client does, for traces.
        items: whatever is closed when this is.
        given: what the errors of the calls name.
    """
    with OneRequest(name) as request, closing(items):
        while True:
            with request.calls(), given.named():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
