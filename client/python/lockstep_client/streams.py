"""Running calls that give items one by one, and a result in the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

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

    def __next__(self) -> Item:
        return next(self._items)

    @property
    def result(self) -> Result:
        """The result, once every item was read.

        Raises:
            ProtocolError: the stream has not reached its end.
        """
        return self._result()

    def close(self) -> None:
        """Cancels what is still running."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(AsyncIterator[Item], Generic[Item, Result]):
    """As `Stream`, for asyncio."""

    def __init__(self, items: AsyncGenerator[Item], result: Callable[[], Result]) -> None:
        self._items = items
        self._result = result

    async def __anext__(self) -> Item:
        return await anext(self._items)

    @property
    def result(self) -> Result:
        """The result, once every item was read.

        Raises:
            ProtocolError: the stream has not reached its end.
        """
        return self._result()

    async def aclose(self) -> None:
        """Cancels what is still running."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
