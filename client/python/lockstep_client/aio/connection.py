"""Calls of asyncio over one channel."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc import aio

from lockstep_client import exceptions
from lockstep_client.connection import USE_DEFAULT, Endpoint, Timeout
from lockstep_client.pulse import PATIENCE_S, QUESTION_TIMEOUT_S, Pulse

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncConnection:
    """A channel to one service. Connects with the first call, and again when it broke."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.channel = (
            aio.insecure_channel(endpoint.address, endpoint.options())
            if endpoint.tls is None
            else aio.secure_channel(
                endpoint.address, endpoint.tls.credentials(), endpoint.options()
            )
        )
        self._pulse = Pulse(endpoint)
        self._ask: Any = self.channel.unary_unary(self._pulse.question)
        self._asking: asyncio.Task[None] | None = None

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
        await self._check_pulse()
        with self.translated_errors():
            return await method(request, timeout=self.endpoint.unary_timeout_s(timeout))

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
        await self._check_pulse()
        call = method(request, timeout=self.endpoint.streaming_timeout_s(timeout))
        try:
            with self.translated_errors():
                async for response in call:
                    yield response
        finally:
            call.cancel()

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
        with self.translated_errors():
            return await method(requests, timeout=self.endpoint.streaming_timeout_s(timeout))

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raises what grpcio raises inside as `LockstepError`."""
        try:
            yield
        except grpc.RpcError as error:
            translated = exceptions.from_rpc_error(error, self.endpoint.peer)
            if self._pulse.doubt(translated):
                self._feel_pulse()
            raise translated from error

    async def _check_pulse(self) -> None:
        """Fails instead of waiting for a service that is known to be away, unless it is back."""
        if self._pulse.away:
            await asyncio.wait([self._feel_pulse()], timeout=PATIENCE_S)
            self._pulse.check()

    def _feel_pulse(self) -> asyncio.Task[None]:
        """Asks whether the service is there, unless somebody does."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._hear())
        return self._asking

    async def _hear(self) -> None:
        try:
            await self._ask(b"", timeout=QUESTION_TIMEOUT_S)
        except grpc.RpcError as error:
            self._pulse.hear(error)
        else:
            self._pulse.hear(None)

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        if self._asking is not None:
            self._asking.cancel()
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
