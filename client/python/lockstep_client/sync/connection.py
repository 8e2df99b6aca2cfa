"""Blocking calls over one channel."""

import threading
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from lockstep_client import exceptions
from lockstep_client.connection import USE_DEFAULT, Endpoint, Timeout
from lockstep_client.pulse import PATIENCE_S, QUESTION_TIMEOUT_S, Pulse

Request = TypeVar("Request")
Response = TypeVar("Response")


class Connection:
    """A channel to one service. Connects with the first call, and again when it broke."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.channel = (
            grpc.insecure_channel(endpoint.address, endpoint.options())
            if endpoint.tls is None
            else grpc.secure_channel(
                endpoint.address, endpoint.tls.credentials(), endpoint.options()
            )
        )
        self._pulse = Pulse(endpoint)
        self._ask: Any = self.channel.unary_unary(self._pulse.question)
        self._asking = threading.Lock()
        self._answered = threading.Event()
        self._answered.set()

    def unary(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
    ) -> Response:
        """Calls a method that has one answer.

        Raises:
            LockstepError: the call failed.
        """
        self._check_pulse()
        try:
            return method(request, timeout=self.endpoint.unary_timeout_s(timeout))
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
    ) -> Generator[Response]:
        """Calls a method that answers with a stream; closing the generator cancels the call.

        Raises:
            LockstepError: the call failed.
        """
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        yield from self._responses(lambda: method(request, timeout=timeout_s))

    def upload(
        self,
        method: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Iterator[Request],
        timeout: Timeout = USE_DEFAULT,
    ) -> Response:
        """Calls a method that takes a stream and has one answer.

        Raises:
            LockstepError: the call failed.
        """
        try:
            return method(requests, timeout=self.endpoint.streaming_timeout_s(timeout))
        except grpc.RpcError as error:
            raise exceptions.from_rpc_error(error, self.endpoint.peer) from error

    def exchange(
        self,
        method: "grpc.StreamStreamMultiCallable[Request, Response]",
        requests: Iterator[Request],
        timeout: Timeout = USE_DEFAULT,
    ) -> Generator[Response]:
        """Calls a method with streams both ways; closing the generator cancels the call.

        Raises:
            LockstepError: the call failed.
        """
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        yield from self._responses(lambda: method(requests, timeout=timeout_s))

    def _responses(self, begin: Callable[[], Any]) -> Generator[Any]:
        self._check_pulse()
        call = begin()
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._translated(error) from error
        finally:
            call.cancel()

    def _check_pulse(self) -> None:
        """Fails instead of waiting for a service that is known to be away, unless it is back."""
        if self._pulse.away:
            self._feel_pulse().wait(PATIENCE_S)
            self._pulse.check()

    def _translated(self, error: grpc.RpcError) -> exceptions.LockstepError:
        translated = exceptions.from_rpc_error(error, self.endpoint.peer)
        if self._pulse.doubt(translated):
            self._feel_pulse()
        return translated

    def _feel_pulse(self) -> threading.Event:
        """Asks whether the service is there, unless somebody does. The event is set then."""
        with self._asking:
            if self._answered.is_set():
                self._answered = answered = threading.Event()
                question = self._ask.future(b"", timeout=QUESTION_TIMEOUT_S)

                def hear(answer: Any) -> None:
                    failed = answer.code() is not grpc.StatusCode.OK
                    self._pulse.hear(answer.exception() if failed else None)
                    answered.set()

                question.add_done_callback(hear)
            return self._answered

    def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
