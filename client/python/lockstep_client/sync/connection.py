"""Blocking calls over one channel."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from lockstep_client import exceptions
from lockstep_client.connection import GRACE_S, USE_DEFAULT, Endpoint, Timeout
from lockstep_client.exceptions import ConnectionFailed, LockstepError
from lockstep_client.pulse import PATIENCE_S, QUESTION_TIMEOUT_S, Pulse
from lockstep_client.retries import Attempts, Throttle, is_idempotent
from lockstep_client.sync.overdue import OVERDUE, WATCH

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
        self._throttle = Throttle()
        self._closed = threading.Event()

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
        attempts = self._attempts(request, self.endpoint.unary_timeout_s(timeout))
        self._check_pulse()
        while True:
            try:
                with self._translated_errors():
                    response = method(request, timeout=attempts.timeout_s)
            except LockstepError as error:
                self._closed.wait(attempts.pause_s(error))
            else:
                attempts.succeed()
                return response

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
        attempts = self._attempts(request, self.endpoint.streaming_timeout_s(timeout))
        self._check_pulse()
        while True:
            with closing(self._responses(method, request, attempts)) as responses:
                try:
                    first = next(responses, None)
                except LockstepError as error:
                    self._closed.wait(attempts.pause_s(error))
                    continue
                attempts.succeed()
                if first is not None:
                    yield first
                    yield from responses
                return

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
        self._check_pulse()
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        with self._translated_errors():
            call = method.future(requests, timeout=timeout_s)
            try:
                return call.result(None if timeout_s is None else timeout_s + GRACE_S)
            except grpc.FutureTimeoutError as error:
                raise exceptions.overdue(self.endpoint.peer) from error
            finally:
                call.cancel()

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
        self._check_pulse()
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        attempts = Attempts(self._throttle, repeatable=False, timeout_s=timeout_s)
        yield from self._responses(method, requests, attempts)

    def _attempts(self, request: Any, timeout_s: float | None) -> Attempts:
        repeatable = self.endpoint.retries and is_idempotent(request)
        return Attempts(self._throttle, repeatable=repeatable, timeout_s=timeout_s)

    def _responses(
        self, method: Callable[..., Any], argument: Any, attempts: Attempts
    ) -> Generator[Any]:
        """Makes one attempt of a call that answers with a stream."""
        with self._translated_errors():
            call = method(argument, timeout=attempts.timeout_s)
            try:
                with WATCH.over(call, attempts.deadline):
                    for response in call:
                        if response is OVERDUE:
                            raise exceptions.overdue(self.endpoint.peer)
                        yield response
            finally:
                call.cancel()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raises what grpcio raises inside as `LockstepError`."""
        try:
            yield
        except grpc.RpcError as error:
            translated = exceptions.from_rpc_error(error, self.endpoint.peer)
            if isinstance(translated, ConnectionFailed) and self._closed.is_set():
                raise exceptions.closed(self.endpoint.peer) from error
            if self._pulse.doubt(translated):
                self._feel_pulse()
            raise translated from error
        except ValueError as error:  # what a closed channel answers
            if self._closed.is_set():
                raise exceptions.closed(self.endpoint.peer) from error
            raise

    def _check_pulse(self) -> None:
        """Fails instead of waiting for a service that is known to be away, unless it is back."""
        if self._pulse.away:
            self._feel_pulse().wait(PATIENCE_S)
            self._pulse.check()

    def _feel_pulse(self) -> threading.Event:
        """Asks whether the service is there, unless somebody does. The event is set then."""
        with self._asking:
            if self._answered.is_set():
                self._answered = answered = threading.Event()
                try:
                    question = self._ask.future(b"", timeout=QUESTION_TIMEOUT_S)
                except ValueError:  # the channel is closed
                    answered.set()
                    return answered

                def hear(answer: Any) -> None:
                    failed = answer.code() is not grpc.StatusCode.OK
                    self._pulse.hear(answer.exception() if failed else None)
                    answered.set()

                question.add_done_callback(hear)
            return self._answered

    def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self._closed.set()
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
