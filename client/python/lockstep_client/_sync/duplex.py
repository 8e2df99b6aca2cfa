# Generated from _async/duplex.py by `make client`.
"""Calls with streams both ways, blocking."""

from typing import TYPE_CHECKING, Generic

from lockstep_client._transport.closing import Closing
from lockstep_client._transport.endpoint import Timeout
from lockstep_client._transport.route import Route
from lockstep_client._transport.sync_connection import Connection, Request, Response
from lockstep_client.exceptions import ProtocolError

if TYPE_CHECKING:  # what has type parameters in the stub files only
    from grpc import StreamStreamMultiCallable


class Duplex(Closing, Generic[Request, Response]):
    """A call with streams both ways. It begins when its first response is asked for."""

    def __init__(
        self,
        connection: Connection,
        method: "StreamStreamMultiCallable[Request, Response]",
        timeout: Timeout,
        route: Route | None = None,
    ) -> None:
        self._service = connection.endpoint.service
        self._requests, self._responses = connection.exchange(method, timeout, route)

    def send(self, request: Request) -> None:
        """Sends a request, and does not wait for an answer."""
        self._requests.put_nowait(request)

    def receive(self) -> Response:
        """Returns the next response.

        Raises:
            ProtocolError: the service has ended the stream.
            LockstepError: the call failed.
        """
        response = next(self._responses, None)
        if response is None:
            raise ProtocolError(f"The {self._service} service ended the stream too early.")
        return response

    def finish(self) -> None:
        """Says that no more requests come, and waits until the service has ended the call.

        Raises:
            LockstepError: the call failed.
        """
        self._requests.put_nowait(None)
        for _ in self._responses:
            pass

    def close(self) -> None:
        """Cancels the call, unless it has ended."""
        self._responses.close()
