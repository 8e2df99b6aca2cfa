"""Whether a service is there, once a call has given reason to doubt it.

gRPC notices soon that no process listens at an address. It takes most of a minute
to notice that a listening process has stopped answering, and until then every call
would wait for its own timeout. So after a call that met its deadline the service
is asked something small. While a service is known to be away, calls fail at
once, and have it asked again: the first one after its return finds it.
"""

from typing import Final

import grpc

from lockstep_client._transport import status
from lockstep_client._transport.endpoint import Endpoint
from lockstep_client.exceptions import ConnectionFailed, DeadlineExceeded, LockstepError

QUESTION_TIMEOUT_S: Final = 1.0
PATIENCE_S: Final = 0.05
"""How long a call waits for the answer of a service that is known to be away."""

_UNREACHABLE: Final = grpc.StatusCode.UNAVAILABLE

_QUESTIONS: Final = {
    "tokenizer": "/lockstep.v1.TokenizerService/GetTokenizerInfo",
    "model": "/lockstep.v1.ModelInfoService/GetModelInfo",
}


class Pulse:
    """What is known about one service. Pure: its owner sends the probes.

    Attributes:
        question: the method that is called to find out, with an empty request.
        away: why calls fail; empty while the service is believed to be there.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Begins with the belief that the service is there."""
        self.question = _QUESTIONS[endpoint.service]
        self.away = ""
        self._peer = endpoint.peer

    def doubt(self, error: LockstepError) -> bool:
        """Takes how a call has failed, and says whether the service should be asked."""
        unreachable = (
            isinstance(error, ConnectionFailed)
            and error.code is _UNREACHABLE
            and error.retry_delay_s is None  # otherwise the connection only had its time
        )
        if unreachable:
            self.away = str(error)
        return unreachable or isinstance(error, DeadlineExceeded)

    def hear(self, error: grpc.RpcError | None) -> None:
        """Records the outcome of a probe; any answer means that the service is there."""
        failure = None if error is None else status.from_rpc_error(error, self._peer)
        if isinstance(failure, DeadlineExceeded):
            self.away = f"Cannot reach {self._peer}: it has stopped answering."
        else:
            unreachable = isinstance(failure, ConnectionFailed) and failure.code is _UNREACHABLE
            self.away = str(failure) if unreachable else ""

    def check(self) -> None:
        """Raises what a call fails with while the service is away.

        Raises:
            ConnectionFailed: it is.
        """
        if self.away:
            raise ConnectionFailed(self.away, code=_UNREACHABLE)
