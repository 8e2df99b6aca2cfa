"""Blocking calls over one channel. `async_connection` has the same names for asyncio."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import grpc

from lockstep_client._transport import status
from lockstep_client._transport.caller import Caller
from lockstep_client._transport.closing import Closing
from lockstep_client._transport.endpoint import (
    GRACE_S,
    MAX_UNARY_CALLS,
    USE_DEFAULT,
    Endpoint,
    Timeout,
)
from lockstep_client._transport.newest_vocabulary import NewestVocabulary
from lockstep_client._transport.pulse import PATIENCE_S, QUESTION_TIMEOUT_S
from lockstep_client._transport.retries import Attempts
from lockstep_client._transport.route import Route
from lockstep_client._transport.sent_requests import SentRequests
from lockstep_client._transport.sync_deadline import OVERDUE, WATCH
from lockstep_client._transport.sync_workers import STREAMS
from lockstep_client.exceptions import LockstepError

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")

Items = Iterable[Item]
"""What a caller gives to be iterated over."""


def iterate(items: Items[Item]) -> Iterator[Item]:
    """Yields the items."""
    return iter(items)


class Connection(Caller, Closing):
    """Calls one service. Connects with the first call, and again when it broke."""

    def __init__(self, endpoint: Endpoint, newest: NewestVocabulary | None = None) -> None:
        super().__init__(grpc, endpoint, newest)
        self.channel = cast(grpc.Channel, self._dialer)
        self._places = threading.Semaphore(MAX_UNARY_CALLS)
        self._asking = threading.Lock()
        self._answered = threading.Event()
        self._answered.set()
        self._closed = threading.Event()
        self._replicas: dict[Endpoint, Connection] = {}

    def unary(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
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
        self._check_pulse()
        while True:
            try:
                with (
                    self._attempt(method, attempts) as (begin, metadata),
                    self._translated_errors(attempts),
                    self._place(attempts),
                ):
                    response, call = begin.with_call(
                        request, timeout=attempts.timeout_s, metadata=metadata
                    )
                    if route is not None:
                        route.take(call.initial_metadata())
            except LockstepError as error:
                self._closed.wait(self._pause_s(attempts, error))
            else:
                attempts.succeed()
                self._newest.note(request, response, by_owner=self._owns_vocabulary)
                return response

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout = USE_DEFAULT,
        *,
        route: Route | None = None,
    ) -> Generator[Response]:
        """Calls a method that answers with a stream; closing the generator cancels the call.

        Raises:
            LockstepError: the call failed.
        """
        attempts = self._attempts(request, timeout, route, streams=True)
        yield from self._repeated(method, lambda: request, attempts)

    def upload(
        self,
        method: "grpc.StreamUnaryMultiCallable[Request, Response]",
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
        self._check_pulse()
        while True:
            try:
                return self._uploaded(method, requests(), attempts)
            except LockstepError as error:
                self._closed.wait(attempts.pause_s(error))

    def _uploaded(
        self,
        method: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Iterator[Request],
        attempts: Attempts,
    ) -> Response:
        """Makes one attempt of a call that takes a stream."""
        timeout_s = attempts.timeout_s
        with (
            self._attempt(method, attempts) as (begin, metadata),
            self._translated_errors(attempts),
        ):
            call = begin.future(requests, timeout=timeout_s, metadata=metadata)
            try:
                return call.result(None if timeout_s is None else timeout_s + GRACE_S)
            except grpc.FutureTimeoutError as error:
                raise status.overdue(self.endpoint.peer, attempts.limit) from error
            finally:
                call.cancel()

    def exchange(
        self,
        method: "grpc.StreamStreamMultiCallable[Request, Response]",
        timeout: Timeout,
        route: Route | None = None,
    ) -> tuple[SentRequests[SimpleQueue[Request | None]], Generator[Response]]:
        """Prepares a call with streams both ways, which begins with the first response.

        Returns:
            Where requests are put, None as the last of them, and the responses; closing
            these cancels the call.
        """
        requests = SentRequests[SimpleQueue[Request | None]](SimpleQueue)
        return requests, self._exchange(method, requests, timeout, route)

    def _exchange(
        self,
        method: Callable[..., Any],
        requests: SentRequests[Any],
        timeout: Timeout,
        route: Route | None,
    ) -> Generator[Any]:
        attempts = self._attempts_of(requests, timeout, route)
        try:
            for response in self._repeated(
                method, lambda: iter(requests.again().get, None), attempts
            ):
                requests.forget()
                yield response
        finally:
            requests.put_nowait(None)  # lets gRPC's thread go that waits for requests

    def _repeated(
        self, method: Callable[..., Any], argument: Callable[[], Any], attempts: Attempts
    ) -> Generator[Any]:
        """Makes attempts of a call that answers with a stream, until one begins to answer."""
        self._check_pulse()
        while True:
            with closing(self._responses(method, argument(), attempts)) as responses:
                try:
                    first = next(responses, None)
                except LockstepError as error:
                    self._closed.wait(self._pause_s(attempts, error))
                    continue
                attempts.succeed()
                if first is not None:
                    yield first
                    yield from responses
                return

    def _responses(
        self, method: Callable[..., Any], argument: Any, attempts: Attempts
    ) -> Generator[Any]:
        """Makes one attempt of a call that answers with a stream."""
        with (
            self._attempt(method, attempts) as (begin, metadata),
            self._translated_errors(attempts),
        ):
            call = begin(argument, timeout=attempts.timeout_s, metadata=metadata)
            try:
                with WATCH.over(call, attempts.deadline), STREAMS.get().reading(call):
                    for response in call:
                        if response is OVERDUE:
                            raise status.overdue(self.endpoint.peer, attempts.limit)
                        if attempts.route is not None:
                            attempts.route.take(call.initial_metadata())
                        yield response
            finally:
                call.cancel()

    def replica(self, address: str) -> "Connection | None":
        """Returns the connection to one replica of the service alone; None where it may not be.

        Args:
            address: what the service says, see `Endpoint.replica`.
        """
        endpoint = self.endpoint.replica(address)
        if endpoint is None:
            return None
        with self._asking:
            if endpoint not in self._replicas:
                self._replicas[endpoint] = Connection(endpoint, self._newest)
            return self._replicas[endpoint]

    @contextmanager
    def _place(self, attempts: Attempts) -> Iterator[None]:
        """Waits for one of the places of calls with one answer."""
        if not self._places.acquire(timeout=attempts.timeout_s):
            raise status.overdue(self.endpoint.peer, attempts.limit)
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def _translated_errors(self, attempts: Attempts) -> Iterator[None]:
        """Raises what grpcio raises inside as `LockstepError`."""
        try:
            yield
        except grpc.RpcError as error:
            translated = self._translated(error, attempts, closed=self._closed.is_set())
            if self._pulse.doubt(translated):
                self._feel_pulse()
            raise translated from error
        except ValueError as error:  # what a closed channel answers
            if self._closed.is_set():
                raise status.closed(self.endpoint.peer) from error
            raise

    def _check_pulse(self) -> None:
        """Fails instead of waiting for a service that is known to be away, unless it is back."""
        if self._pulse.away:
            self._feel_pulse().wait(PATIENCE_S)
            self._pulse.check()

    def _feel_pulse(self) -> threading.Event:
        """Probes the service, unless a probe is running. The event is set afterwards."""
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
        for channel in self._dialer.open_channels:
            channel.close()
        for replica in list(self._replicas.values()):
            replica.close()
