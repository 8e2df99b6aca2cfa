"""Calls with streams both ways, for asyncio."""

from typing import TYPE_CHECKING, Generic

from lockstep_client._transport.async_connection import AsyncConnection, Request, Response
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import Timeout
from lockstep_client._transport.route import Route
from lockstep_client.exceptions import ProtocolError

if TYPE_CHECKING:  # what has type parameters in the stub files only
    from grpc.aio import StreamStreamMultiCallable


class AsyncDuplex(AsyncClosing, Generic[Request, Response]):
    """A call with streams both ways. It begins when its first response is asked for."""

    def __init__(
        self,
        connection: AsyncConnection,
        method: "StreamStreamMultiCallable[Request, Response]",
        timeout: Timeout,
        route: Route | None = None,
    ) -> None:
        self._service = connection.endpoint.service
        self._requests, self._responses = connection.exchange(method, timeout, route)

    def send(self, request: Request) -> None:
        """Sends a request, and does not wait for an answer."""
        self._requests.put_nowait(request)

    async def receive(self) -> Response:
        """Returns the next response.

        Raises:
            ProtocolError: the service has ended the stream.
            LockstepError: the call failed.
        """
        response = await anext(self._responses, None)
        if response is None:
            raise ProtocolError(f"The {self._service} service ended the stream too early.")
        return response

    async def finish(self) -> None:
        """Says that no more requests come, and waits until the service has ended the call.

        Raises:
            LockstepError: the call failed.
        """
        self._requests.put_nowait(None)
        async for _ in self._responses:
            pass

    async def close(self) -> None:
        """Cancels the call, unless it has ended."""
        await self._responses.aclose()
