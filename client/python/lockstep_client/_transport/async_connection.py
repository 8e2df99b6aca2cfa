"""Calls over one channel, for asyncio.

`sync_connection` has the same names for blocking calls. Everything above these two is
written once: `_sync` is generated from `_async`.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing, closing, contextmanager
from typing import Any, TypeVar, cast

import grpc
from grpc import aio

from lockstep_client._transport import status
from lockstep_client._transport.async_deadline import Deadline
from lockstep_client._transport.caller import Caller
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import MAX_UNARY_CALLS, USE_DEFAULT, Endpoint, Timeout
from lockstep_client._transport.newest_vocabulary import NewestVocabulary
from lockstep_client._transport.pulse import PATIENCE_S, QUESTION_TIMEOUT_S
from lockstep_client._transport.retries import Attempts
from lockstep_client._transport.route import Route
from lockstep_client._transport.sent_requests import SentRequests
from lockstep_client.exceptions import LockstepError

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")


Items = Iterable[Item] | AsyncIterable[Item]
"""What a caller gives to be iterated over."""


async def iterate(items: Items[Item]) -> AsyncIterator[Item]:
    """Yields the items."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class AsyncConnection(Caller, AsyncClosing):
    """Calls one service. Connects with the first call, and again when it broke."""

    def __init__(self, endpoint: Endpoint, newest: NewestVocabulary | None = None) -> None:
        super().__init__(aio, endpoint, newest)
        self.channel = cast(aio.Channel, self._dialer)
        self._places = asyncio.Semaphore(MAX_UNARY_CALLS)
        self._asking: asyncio.Task[None] | None = None
        self._closed = False
        self._replicas: dict[Endpoint, AsyncConnection] = {}

    async def unary(
        self,
        method: "aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
        *,
        route: Route | None = None,
        long: bool = False,
    ) -> Response:
        """Calls a method that has one answer.

        Args:
            method: the method.
            request: its request.
            timeout: in seconds.
            route: of the session that the call is about, if there is one.
            long: whether the client's own timeout is that of streams.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts(request, timeout, route, streams=long)
        await self._check_pulse()
        while True:
            try:
                with (
                    self._attempt(method, attempts) as (begin, metadata),
                    self._deadline(attempts),
                    self._translated_errors(attempts),
                ):
                    async with self._places:
                        call = begin(request, timeout=attempts.timeout_s, metadata=metadata)
                        response = await call
                        if route is not None:
                            route.take(await call.initial_metadata())
            except LockstepError as error:
                await asyncio.sleep(self._pause_s(attempts, error))
            else:
                attempts.succeed()
                self._newest.note(request, response, by_owner=self._owns_vocabulary)
                return response

    async def stream(
        self,
        method: "aio.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
        *,
        route: Route | None = None,
    ) -> AsyncGenerator[Response]:
        """Calls a method that answers with a stream; closing the generator cancels the call.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts(request, timeout, route, streams=True)
        async with aclosing(self._repeated(method, lambda: request, attempts)) as responses:
            async for response in responses:
                yield response

    async def upload(
        self,
        method: "aio.StreamUnaryMultiCallable[Request, Response]",
        requests: Callable[[], Iterator[Request]],
        timeout: Timeout,
        *,
        repeatable: bool,
    ) -> Response:
        """Calls a method that takes a stream and has one answer.

        Args:
            method: the method.
            requests: gives the requests, of every attempt anew.
            timeout: of all attempts.
            repeatable: whether there may be several.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts_of_upload(timeout, repeatable=repeatable)
        await self._check_pulse()
        while True:
            try:
                with (
                    self._attempt(method, attempts) as (begin, metadata),
                    self._deadline(attempts),
                    self._translated_errors(attempts),
                ):
                    return await begin(requests(), timeout=attempts.timeout_s, metadata=metadata)
            except LockstepError as error:
                await asyncio.sleep(attempts.pause_s(error))

    def exchange(
        self,
        method: "aio.StreamStreamMultiCallable[Request, Response]",
        timeout: Timeout,
        route: Route | None = None,
    ) -> tuple[SentRequests[asyncio.Queue[Request | None]], AsyncGenerator[Response]]:
        """Prepares a call with streams both ways, which begins with the first response.

        Returns:
            Where requests are put, None as the last of them, and the responses; closing
            these cancels the call.
        """
        requests = SentRequests[asyncio.Queue[Request | None]](asyncio.Queue)
        return requests, self._exchange(method, requests, timeout, route)

    async def _exchange(
        self,
        method: Callable[..., Any],
        requests: SentRequests[Any],
        timeout: Timeout,
        route: Route | None,
    ) -> AsyncGenerator[Any]:
        attempts = self._attempts_of(requests, timeout, route)
        responses = self._repeated(method, lambda: _until_none(requests.again()), attempts)
        try:
            async with aclosing(responses):
                async for response in responses:
                    requests.forget()
                    yield response
        finally:
            requests.put_nowait(None)  # lets gRPC's task go that waits for requests

    async def _repeated(
        self, method: Callable[..., Any], argument: Callable[[], Any], attempts: Attempts
    ) -> AsyncGenerator[Any]:
        """Makes attempts of a call that answers with a stream, until one begins to answer."""
        await self._check_pulse()
        while True:
            async with aclosing(self._responses(method, argument(), attempts)) as responses:
                try:
                    first = await anext(responses, None)
                except LockstepError as error:
                    await asyncio.sleep(self._pause_s(attempts, error))
                    continue
                attempts.succeed()
                if first is not None:
                    yield first
                    async for response in responses:
                        yield response
                return

    async def _responses(
        self, method: Callable[..., Any], argument: Any, attempts: Attempts
    ) -> AsyncGenerator[Any]:
        """Makes one attempt of a call that answers with a stream."""
        deadline = Deadline(attempts, self.endpoint.peer)
        with (
            self._attempt(method, attempts) as (begin, metadata),
            closing(deadline),
            self._translated_errors(attempts),
        ):
            call = begin(argument, timeout=attempts.timeout_s, metadata=metadata)
            try:
                messages = aiter(call)
                while True:
                    with deadline:
                        try:
                            response = await anext(messages)
                        except StopAsyncIteration:
                            return
                        if attempts.route is not None:
                            attempts.route.take(await call.initial_metadata())
                    yield response
            finally:
                call.cancel()

    def replica(self, address: str) -> "AsyncConnection | None":
        """Returns the connection to one replica of the service alone; None where it may not be.

        Args:
            address: what the service says, see `Endpoint.replica`.
        """
        endpoint = self.endpoint.replica(address)
        if endpoint is not None and endpoint not in self._replicas:
            self._replicas[endpoint] = AsyncConnection(endpoint, self._newest)
        return None if endpoint is None else self._replicas[endpoint]

    @contextmanager
    def _deadline(self, attempts: Attempts) -> Iterator[None]:
        deadline = Deadline(attempts, self.endpoint.peer)
        with closing(deadline), deadline:
            yield

    @contextmanager
    def _translated_errors(self, attempts: Attempts) -> Iterator[None]:
        """Raises what grpcio raises inside as `LockstepError`."""
        try:
            yield
        except aio.UsageError as error:  # the channel is closed
            raise status.closed(self.endpoint.peer) from error
        except grpc.RpcError as error:
            translated = self._translated(error, attempts, closed=self._closed)
            if self._pulse.doubt(translated):
                self._feel_pulse()
            raise translated from error

    async def _check_pulse(self) -> None:
        """Fails instead of waiting for a service that is known to be away, unless it is back."""
        if self._pulse.away:
            await asyncio.wait([self._feel_pulse()], timeout=PATIENCE_S)
            self._pulse.check()

    def _feel_pulse(self) -> asyncio.Task[None]:
        """Probes the service, unless a probe is running."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._hear())
        return self._asking

    async def _hear(self) -> None:
        try:
            await self._ask(b"", timeout=QUESTION_TIMEOUT_S)
        except grpc.RpcError as error:
            self._pulse.hear(error)
        except aio.UsageError:  # the channel is closed
            pass
        else:
            self._pulse.hear(None)

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()
        for channel in self._dialer.open_channels:
            await channel.close()
        for replica in self._replicas.values():
            await replica.close()


async def _until_none(requests: asyncio.Queue[Request | None]) -> AsyncIterator[Request]:
    while (request := await requests.get()) is not None:
        yield request
