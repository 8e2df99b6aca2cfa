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
from typing import Any, Generic, TypeVar, cast

import grpc
from grpc import aio

from lockstep_client._transport import status
from lockstep_client._transport.async_deadline import Deadline
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import USE_DEFAULT, Endpoint, Timeout
from lockstep_client._transport.pulse import PATIENCE_S, QUESTION_TIMEOUT_S, Pulse
from lockstep_client._transport.retries import Attempts, Throttle, is_idempotent
from lockstep_client.exceptions import ConnectionFailed, LockstepError, ProtocolError

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


class AsyncConnection(AsyncClosing):
    """Calls one service. Connects with the first call, and again when it broke."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._channels = _Channels(endpoint)
        self.channel = cast(aio.Channel, self._channels)
        self._pulse = Pulse(endpoint)
        self._ask: Any = self.channel.unary_unary(self._pulse.question)
        self._asking: asyncio.Task[None] | None = None
        self._throttle = Throttle()
        self._closed = False

    async def unary(
        self,
        method: "aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
    ) -> Response:
        """Calls a method that has one answer.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts(request, self.endpoint.unary_timeout_s(timeout))
        await self._check_pulse()
        while True:
            try:
                with self._deadline(attempts), self._translated_errors():
                    response = await method(request, timeout=attempts.timeout_s)
            except LockstepError as error:
                await asyncio.sleep(attempts.pause_s(error))
            else:
                attempts.succeed()
                return response

    async def stream(
        self,
        method: "aio.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
    ) -> AsyncGenerator[Response]:
        """Calls a method that answers with a stream; closing the generator cancels the call.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts(request, self.endpoint.streaming_timeout_s(timeout))
        await self._check_pulse()
        while True:
            async with aclosing(self._responses(method, request, attempts)) as responses:
                try:
                    first = await anext(responses, None)
                except LockstepError as error:
                    await asyncio.sleep(attempts.pause_s(error))
                    continue
                attempts.succeed()
                if first is not None:
                    yield first
                    async for response in responses:
                        yield response
                return

    async def upload(
        self,
        method: "aio.StreamUnaryMultiCallable[Request, Response]",
        requests: Iterator[Request],
        timeout: Timeout = USE_DEFAULT,
    ) -> Response:
        """Calls a method that takes a stream and has one answer.

        Raises:
            LockstepError: the call failed.
        """
        await self._check_pulse()
        attempts = self._only_attempt(timeout)
        with self._deadline(attempts), self._translated_errors():
            return await method(requests, timeout=attempts.timeout_s)

    def duplex(
        self,
        method: "aio.StreamStreamMultiCallable[Request, Response]",
        timeout: Timeout = USE_DEFAULT,
    ) -> "AsyncDuplex[Request, Response]":
        """Prepares a call with streams both ways."""
        requests = asyncio.Queue[Request | None]()
        return AsyncDuplex(requests, self._exchange(method, requests, timeout), self.endpoint)

    async def _exchange(
        self,
        method: Callable[..., Any],
        requests: asyncio.Queue[Request | None],
        timeout: Timeout,
    ) -> AsyncGenerator[Any]:
        await self._check_pulse()
        responses = self._responses(method, _until_none(requests), self._only_attempt(timeout))
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
        finally:
            requests.put_nowait(None)  # lets gRPC's task go that waits for requests

    def _attempts(self, request: Any, timeout_s: float | None) -> Attempts:
        repeatable = self.endpoint.retries and is_idempotent(request)
        return Attempts(self._throttle, repeatable=repeatable, timeout_s=timeout_s)

    def _only_attempt(self, timeout: Timeout) -> Attempts:
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        return Attempts(self._throttle, repeatable=False, timeout_s=timeout_s)

    async def _responses(
        self, method: Callable[..., Any], argument: Any, attempts: Attempts
    ) -> AsyncGenerator[Any]:
        """Makes one attempt of a call that answers with a stream."""
        deadline = Deadline(attempts.timeout_s, self.endpoint.peer)
        with closing(deadline), self._translated_errors():
            call = method(argument, timeout=attempts.timeout_s)
            try:
                messages = aiter(call)
                while True:
                    with deadline:
                        try:
                            response = await anext(messages)
                        except StopAsyncIteration:
                            return
                    yield response
            finally:
                call.cancel()

    @contextmanager
    def _deadline(self, attempts: Attempts) -> Iterator[None]:
        deadline = Deadline(attempts.timeout_s, self.endpoint.peer)
        with closing(deadline), deadline:
            yield

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raises what grpcio raises inside as `LockstepError`."""
        try:
            yield
        except aio.UsageError as error:  # the channel is closed
            raise status.closed(self.endpoint.peer) from error
        except grpc.RpcError as error:
            translated = status.from_rpc_error(error, self.endpoint.peer)
            if isinstance(translated, ConnectionFailed) and self._closed:
                raise status.closed(self.endpoint.peer) from error
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
        await self._channels.close()


class AsyncDuplex(AsyncClosing, Generic[Request, Response]):
    """A call with streams both ways. It begins when its first response is asked for."""

    def __init__(
        self,
        requests: asyncio.Queue[Request | None],
        responses: AsyncGenerator[Response],
        endpoint: Endpoint,
    ) -> None:
        self._requests = requests
        self._responses = responses
        self._service = endpoint.service

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


async def _until_none(requests: asyncio.Queue[Request | None]) -> AsyncIterator[Request]:
    while (request := await requests.get()) is not None:
        yield request


class _Channels:
    """A channel for calls with one answer and one for streams, as `retries` has it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._unary, self._streams = (_channel(endpoint, streams=each) for each in (False, True))
        self.unary_unary = self._unary.unary_unary
        self.unary_stream = self._streams.unary_stream
        self.stream_unary = self._streams.stream_unary
        self.stream_stream = self._streams.stream_stream

    async def close(self) -> None:
        await self._unary.close()
        await self._streams.close()


def _channel(endpoint: Endpoint, *, streams: bool) -> aio.Channel:
    options = endpoint.options(streams=streams)
    if endpoint.tls is None:
        return aio.insecure_channel(endpoint.address, options)
    return aio.secure_channel(endpoint.address, endpoint.tls.credentials(), options)
