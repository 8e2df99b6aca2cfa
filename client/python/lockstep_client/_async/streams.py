"""Running calls that give items one by one, and a result in the end, for asyncio."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Generic, Self, TypeVar

from lockstep_client._calls.argument import Argument
from lockstep_client._transport.request_id import OneRequest
from lockstep_client._values.one_line import described

Item = TypeVar("Item")
Result = TypeVar("Result")


class AsyncStream(AsyncIterator[Item], Generic[Item, Result]):
    """Items of a running call.

    The call starts with the first item that is asked for. It is cancelled, and
    the server frees what it holds, when the stream is closed: explicitly, by
    leaving an `async with` block, or by dropping the stream.
    """

    def __init__(self, items: AsyncGenerator[Item], result: Callable[[], Result]) -> None:
        self._items = items
        self._result = result
        self._ended = False
        self._count = 0

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running" if self._count else "not begun"
        return described(self, f"{state}, {self._count} items read")

    async def __anext__(self) -> Item:
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
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

    async def aclose(self) -> None:
        """Cancels what is still running."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


async def in_one_request(
    name: str, items: AsyncGenerator[Item], given: Argument
) -> AsyncGenerator[Item]:
    """Yields the items, and makes the calls that each needs part of one request.

    Args:
        name: what the client does, for traces.
        items: whatever is closed when this is.
        given: what the errors of the calls name.
    """
    with OneRequest(name) as request:
        async with aclosing(items):
            while True:
                with request.calls(), given.named():
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                yield item
