"""How long a client waits for a service that is not up yet."""

import time
from typing import Final

import grpc

from lockstep_client._transport.endpoint import check_timeout
from lockstep_client.exceptions import ConnectionFailed, LockstepError, WrongType

PAUSE_S: Final = 0.2


class Patience:
    """Counts down the time that a caller is willing to wait."""

    def __init__(self, timeout_s: float) -> None:
        if check_timeout("timeout", timeout_s) is None:
            raise WrongType("timeout is a number of seconds: how long to wait.")
        self._deadline = time.monotonic() + timeout_s
        self._reason: LockstepError | None = None

    @property
    def remaining_s(self) -> float:
        """Time left, at least a millisecond."""
        return max(self._deadline - time.monotonic(), 0.001)

    def pause_s(self, error: LockstepError) -> float:
        """Returns the time to wait before the next attempt.

        Args:
            error: how the last attempt failed.

        Raises:
            LockstepError: the error, where waiting does not help or time is up. That
                an attempt met the deadline says less than why an earlier one failed.
        """
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._reason is not None:
            raise self._reason
        pause_s = error.retry_delay_s or PAUSE_S
        passes = error.code is grpc.StatusCode.UNAVAILABLE or isinstance(error, ConnectionFailed)
        left_s = self._deadline - time.monotonic()
        if not passes or left_s <= 0:
            raise error
        self._reason = error
        return min(pause_s, left_s)
