"""What calls need to know, whether they block or not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, Self, TypeVar, cast

import grpc

from lockstep_client._transport import prompt_prefix, status, tracing
from lockstep_client._transport.dialer import Dialer, Method
from lockstep_client._transport.endpoint import Endpoint, Timeout
from lockstep_client._transport.newest_vocabulary import NewestVocabulary
from lockstep_client._transport.pulse import Pulse
from lockstep_client._transport.retries import Attempts, Throttle, is_idempotent
from lockstep_client._transport.route import Route
from lockstep_client._transport.sent_requests import SentRequests
from lockstep_client.exceptions import (
    ConnectionFailed,
    DeadlineExceeded,
    FeatureNotImplemented,
    LockstepError,
    ProtocolError,
)

Called = TypeVar("Called")
Made = TypeVar("Made")

SERVICES: Final = {
    "tokenizer": "lockstep.v1.TokenizerService",
    "model": "lockstep.v1.ModelService",
}
"""What tells one service from the other."""


class Caller:
    """One service: its channels, whether it is there, and when a call is made again.

    Attributes:
        endpoint: the service.
    """

    def __init__(
        self, api: ModuleType, endpoint: Endpoint, newest: NewestVocabulary | None = None
    ) -> None:
        self.endpoint = endpoint
        self._newest = newest or NewestVocabulary()
        self._dialer = Dialer(api, endpoint)
        self._pulse = Pulse(endpoint)
        self._question = self._dialer.unary_unary(self._pulse.question)
        self._throttle = Throttle(endpoint.retries)
        self._owns_vocabulary = endpoint.service == "tokenizer"
        self._kept: dict[Any, Any] = {}

    def kept(self, make: Callable[[Self], Made]) -> Made:
        """Returns what is made of this connection once, when it is first asked for."""
        if make not in self._kept:
            self._kept[make] = make(self)
        made: Made = self._kept[make]
        return made

    def _attempts(
        self, request: Any, timeout: Timeout, route: Route | None, *, streams: bool
    ) -> Attempts:
        filled = self._newest.fill(request)
        attempts = self._limited(
            timeout,
            route,
            streams=streams,
            retries=self.endpoint.retries,
            idempotent=is_idempotent(request),
        )
        attempts.vocabulary = filled
        if self.endpoint.prefix_routing:
            attempts.prefix = prompt_prefix.metadata(request)
        return attempts

    def _pause_s(self, attempts: Attempts, error: LockstepError) -> float:
        """Returns the time to wait before the next attempt, as `Attempts.pause_s`.

        Raises:
            LockstepError: why the call has failed, where it is not made again.
        """
        try:
            return attempts.pause_s(error)
        except LockstepError as last:
            vocabulary = attempts.vocabulary
            explained = self._newest.explained(last, vocabulary, by_owner=self._owns_vocabulary)
            if explained is last:
                raise
            raise explained from last

    def _attempts_of(
        self, requests: SentRequests[Any], timeout: Timeout, route: Route | None
    ) -> Attempts:
        return self._limited(
            timeout,
            route,
            streams=True,
            retries=self.endpoint.retries,
            idempotent=requests.are_repeatable,
        )

    def _attempts_of_upload(self, timeout: Timeout, *, repeatable: bool) -> Attempts:
        retries = self.endpoint.retries if repeatable else 0
        return self._limited(timeout, None, streams=True, retries=retries, idempotent=repeatable)

    def _limited(
        self,
        timeout: Timeout,
        route: Route | None,
        *,
        streams: bool,
        retries: int,
        idempotent: bool,
    ) -> Attempts:
        limit = self.endpoint.streaming_timeout_s if streams else self.endpoint.unary_timeout_s
        return Attempts(
            self._throttle,
            retries=retries,
            idempotent=idempotent,
            timeout_s=limit(timeout),
            token=self.endpoint.token,
            keyword="stream_timeout" if streams else "timeout",
            route=route,
        )

    @property
    def _ask(self) -> Any:
        """What finds out whether the service answers."""
        return self._dialer.newest.method(self._question)

    @contextmanager
    def _attempt(
        self, method: Called, attempts: Attempts
    ) -> Iterator[tuple[Called, tracing.Metadata]]:
        """Makes the block an attempt of a call. Gives what is called, and the metadata to send."""
        named = cast(Method, method)  # what stubs that are built from a dialer have
        with (
            self._throttle.attempt(named.path),
            tracing.attempt(named.path, self.endpoint) as headers,
            self._dialer.use(attempts.route) as channels,
        ):
            yield channels.method(named), (*attempts.metadata, *headers)

    def _translated(
        self, error: grpc.RpcError, attempts: Attempts, *, closed: bool
    ) -> LockstepError:
        """Returns what an error of gRPC means, where the client may be closed."""
        translated = status.from_rpc_error(error, self.endpoint.peer)
        if isinstance(translated, DeadlineExceeded):
            return status.overdue(self.endpoint.peer, attempts.limit)
        if isinstance(translated, FeatureNotImplemented):
            return self._expected_elsewhere(translated) or translated
        if closed and isinstance(translated, ConnectionFailed):
            return status.closed(self.endpoint.peer)
        return translated

    def _expected_elsewhere(self, error: FeatureNotImplemented) -> LockstepError | None:
        """Returns what it means that a server does not know a method: it is the other service."""
        offered = error.metadata.get("services", "").split(",")
        for service, name in SERVICES.items():
            if service != self.endpoint.service and name in offered:
                return ProtocolError(
                    f"{self.endpoint.address} is a {service} service; "
                    f"the {self.endpoint.service} service was expected there.",
                    code=error.code,
                )
        return None
