"""What calls need to know, whether they block or not."""

from types import ModuleType
from typing import Any

import grpc

from lockstep_client._transport import status
from lockstep_client._transport.endpoint import Endpoint, Timeout
from lockstep_client._transport.pulse import Pulse
from lockstep_client._transport.retries import Attempts, Throttle, is_idempotent
from lockstep_client.exceptions import ConnectionFailed, LockstepError


class Channels:
    """A channel for calls with one answer and one for streams, as `retries` has it.

    Attributes:
        both: to be closed.
    """

    def __init__(self, api: ModuleType, endpoint: Endpoint) -> None:
        """Opens them.

        Args:
            api: `grpc` or `grpc.aio`.
            endpoint: the service.
        """
        unary, streams = self.both = [_open(api, endpoint, streams=each) for each in (False, True)]
        self.unary_unary = unary.unary_unary
        self.unary_stream = streams.unary_stream
        self.stream_unary = streams.stream_unary
        self.stream_stream = streams.stream_stream


class Caller:
    """One service: its channels, whether it is there, and when a call is made again.

    Attributes:
        endpoint: the service.
    """

    def __init__(self, api: ModuleType, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._channels = Channels(api, endpoint)
        self._pulse = Pulse(endpoint)
        self._ask = self._channels.unary_unary(self._pulse.question)
        self._throttle = Throttle()

    def _attempts(self, request: Any, timeout_s: float | None) -> Attempts:
        repeatable = self.endpoint.retries and is_idempotent(request)
        return Attempts(self._throttle, repeatable=repeatable, timeout_s=timeout_s)

    def _only_attempt(self, timeout: Timeout) -> Attempts:
        timeout_s = self.endpoint.streaming_timeout_s(timeout)
        return Attempts(self._throttle, repeatable=False, timeout_s=timeout_s)

    def _translated(self, error: grpc.RpcError, *, closed: bool) -> LockstepError:
        """Returns what an error of gRPC means, where the client may be closed."""
        translated = status.from_rpc_error(error, self.endpoint.peer)
        if closed and isinstance(translated, ConnectionFailed):
            return status.closed(self.endpoint.peer)
        return translated


def _open(api: ModuleType, endpoint: Endpoint, *, streams: bool) -> Any:
    options = endpoint.options(streams=streams)
    if endpoint.tls is None:
        return api.insecure_channel(endpoint.address, options)
    return api.secure_channel(endpoint.address, endpoint.tls.credentials(), options)
