"""How a service is dialed, and dialed anew when the replica that was reached shuts down.

A balancer of connections keeps a connection where it once went. So a client with one would stay
with a replica that takes no new work until its process ends, while others could serve it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, Final
from weakref import WeakSet

from lockstep_client._transport.endpoint import Endpoint
from lockstep_client._transport.route import Route
from lockstep_client.exceptions import ConnectionFailed, Draining

_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_MIN_AGE_S: Final = 1.0
"""A service that answers as one that shuts down is not dialed more often."""


class Method:
    """A method of a service, over whatever channels it is called.

    Attributes:
        path: `/package.Service/Method`.
    """

    def __init__(self, kind: str, path: str, *arguments: Any, **keywords: Any) -> None:
        self.path = path
        self._kind = kind
        self._arguments = arguments
        self._keywords = keywords

    def over(self, channels: "Channels") -> Any:
        """Returns it as gRPC calls it."""
        channel = channels.unary if self._kind == "unary_unary" else channels.streams
        return getattr(channel, self._kind)(self.path, *self._arguments, **self._keywords)


class Channels:
    """A channel for calls with one answer and one for streams, as `retries` has it."""

    def __init__(self, api: ModuleType, endpoint: Endpoint, *, anew: bool = False) -> None:
        """Opens them; they connect with their first calls.

        Args:
            api: `grpc` or `grpc.aio`.
            endpoint: the service.
            anew: whether to share no connection with others. gRPC would take one that is there.
        """
        self.opened_at = time.monotonic()
        self.unary, self.streams = (
            _open(api, endpoint, streams=streams, anew=anew) for streams in (False, True)
        )
        self._methods: dict[Method, Any] = {}

    @property
    def both(self) -> Sequence[Any]:
        """Both channels, to be closed."""
        return self.unary, self.streams

    def method(self, method: Method) -> Any:
        """Returns a method over these channels, as gRPC calls it."""
        if method not in self._methods:
            self._methods[method] = method.over(self)
        return self._methods[method]


class Dialer:
    """The channels to one service. Stubs are built from it as from a channel.

    What has begun over channels goes on over them, sessions too, as their replica lets them until
    it ends. Channels that nothing uses any more are closed by being forgotten.
    """

    unary_unary: Callable[..., Method]
    unary_stream: Callable[..., Method]
    stream_unary: Callable[..., Method]
    stream_stream: Callable[..., Method]

    def __init__(self, api: ModuleType, endpoint: Endpoint) -> None:
        """Opens the first channels.

        Args:
            api: `grpc` or `grpc.aio`.
            endpoint: the service.
        """
        self._open = partial(Channels, api, endpoint)
        self.newest = self._open()
        self._all = WeakSet([self.newest])
        self._lock = threading.Lock()
        for kind in _KINDS:
            setattr(self, kind, partial(Method, kind))

    @property
    def open_channels(self) -> list[Any]:
        """All channels that are in use, to be closed."""
        return [channel for channels in list(self._all) for channel in channels.both]

    @contextmanager
    def use(self, route: Route | None) -> Iterator[Channels]:
        """Gives the block the channels for a call.

        Args:
            route: of the session that the call is about, which keeps to the channels over which
                it was opened, as long as its replica answers.
        """
        own = None if route is None else route.channels
        channels = own if isinstance(own, Channels) and own in self._all else self.newest
        try:
            yield channels
        except (ConnectionFailed, Draining) as error:
            if isinstance(error, Draining):
                self._leave(channels)
            if route is not None:
                route.channels = None
            raise
        if route is not None:
            route.channels = channels

    def _leave(self, channels: Channels) -> None:
        """Lets later calls use channels of their own, which may reach another replica."""
        with self._lock:
            age_s = time.monotonic() - channels.opened_at
            if channels is self.newest and age_s >= _MIN_AGE_S:
                self.newest = self._open(anew=True)
                self._all.add(self.newest)


def _open(api: ModuleType, endpoint: Endpoint, *, streams: bool, anew: bool) -> Any:
    options = endpoint.options(streams=streams, shared=not anew)
    if endpoint.tls is None:
        return api.insecure_channel(endpoint.address, options)
    return api.secure_channel(endpoint.address, endpoint.tls.credentials(), options)
