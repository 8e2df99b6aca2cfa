"""Whether and when a failed call is made again. Pure: the caller waits.

gRPC makes a second attempt by itself of a call that no server has looked at, for
example because the server was about to end the connection (`max_connection_age`). So
a step of a session is not lost to it, and is not made twice. Calls that stream have a
channel without this: where the new attempt of one cannot connect, gRPC ends the call
and never says so to its reader, and its deadline passes unnoticed
(grpc/grpc#41036). The rules here are those of the service config, with its numbers.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Final

from google.protobuf.message import Message
from lockstep.v1 import (
    logits_session_service_pb2,
    model_info_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    vocabulary_admin_service_pb2,
    vocabulary_pb2,
)

from lockstep_client._transport import bearer_token, request_id, service_config
from lockstep_client._transport.bearer_token import Token
from lockstep_client._transport.endpoint import DEFAULT_RETRIES
from lockstep_client._transport.route import Metadata, Route
from lockstep_client.exceptions import (
    ConnectionFailed,
    DeadlineExceeded,
    Loading,
    LockstepError,
    Overloaded,
    QuotaExceeded,
    SessionBusy,
    VocabularyBehind,
)

INITIAL_BACKOFF_S: Final = service_config.seconds(service_config.POLICY["initialBackoff"])
MAX_BACKOFF_S: Final = service_config.seconds(service_config.POLICY["maxBackoff"])
BACKOFF_MULTIPLIER: Final[float] = service_config.POLICY["backoffMultiplier"]
BACKOFF_JITTER: Final = 0.2
"""A backoff is up to this fraction shorter or longer, and a stated time up to as much longer."""

LONGEST_SILENCE_S: Final = 1.0
"""So long at most a client does not ask a service again that refuses everything."""

MAX_TOKENS: Final[float] = service_config.THROTTLING["maxTokens"]
TOKEN_RATIO: Final[float] = service_config.THROTTLING["tokenRatio"]

# Every method has a request type of its own, so a request tells its method.
_IDEMPOTENT_REQUESTS: Final = frozenset(
    method.input_type.full_name
    for module in (
        tokenizer_service_pb2,
        vocabulary_admin_service_pb2,
        model_service_pb2,
        logits_session_service_pb2,
        model_info_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.full_name in service_config.IDEMPOTENT_METHODS
)


# What a service says before it has begun with a call: any method may be called again. So may one
# that it has not even looked at, which is a `ConnectionFailed` with a time.
_REFUSALS: Final = (
    ConnectionFailed,
    Loading,
    Overloaded,
    QuotaExceeded,
    SessionBusy,
    VocabularyBehind,
)


def _is_load(error: LockstepError) -> bool:
    """Says whether a failure tells that a service has too much to do, or takes nothing.

    A call may wait for its session or its revision, or for room on its own connection.
    """
    if isinstance(error, Overloaded):
        return bool(error.metadata)  # otherwise it is gRPC that has refused it
    return not isinstance(error, SessionBusy | VocabularyBehind)


class Throttle:
    """Ends repetition while most calls of a connection fail: it would add to the load.

    What a service refuses and says when to come back is a failure only if it is refused again
    then. So callers that find room when their turn comes are never throttled, and those of a
    service that refuses everything soon make one attempt of each call, and fewer where they call
    again at once.

    Threads share it without a lock: a count that is lost matters little.
    """

    def __init__(self, retries: int = DEFAULT_RETRIES) -> None:
        """Begins full.

        Args:
            retries: as many attempts one call can make even if all of them fail.
        """
        self._most = max(MAX_TOKENS, 2.0 * (retries + 1))
        self._tokens = self._most
        self._refusals: dict[str, tuple[LockstepError, float]] = {}

    def succeed(self) -> None:
        """Counts a call that was answered."""
        self._tokens = min(self._tokens + TOKEN_RATIO, self._most)

    def fail(self, *, counts: bool = True) -> bool:
        """Takes a failure that may pass, and says whether to try again.

        Args:
            counts: whether it is one of those that end repetition.
        """
        if counts:
            self._tokens = max(self._tokens - 1, 0)
        return self._is_open

    @property
    def _is_open(self) -> bool:
        return self._tokens > self._most / 2

    @contextmanager
    def attempt(self, path: str) -> Iterator[None]:
        """Makes the block an attempt of a method.

        While nothing is repeated, a method that was refused is not called before the time that
        the service has stated.

        Raises:
            LockstepError: that time has not come.
        """
        error, until = self._refusals.get(path, (None, 0.0))
        if error is not None and not self._is_open and time.monotonic() < until:
            raise copy(error)
        try:
            yield
        except LockstepError as refusal:
            if refusal.retry_delay_s is not None and _is_load(refusal):
                delay_s = min(refusal.retry_delay_s, LONGEST_SILENCE_S)
                self._refusals[path] = refusal, time.monotonic() + delay_s
            raise


class Attempts:
    """The attempts of one call, all within its timeout.

    Attributes:
        deadline: by the monotonic clock, in seconds; None where there is none.
        limit: the timeout in words.
        route: of the session that the call is about, or None.
        prefix: what names the beginning of the request's prompt.
        vocabulary: what the client lets the request ask for by itself, or None.
    """

    def __init__(
        self,
        throttle: Throttle,
        *,
        retries: int,
        idempotent: bool,
        timeout_s: float | None,
        keyword: str = "timeout",
        token: Token | None = None,
        route: Route | None = None,
    ) -> None:
        """Begins with the first.

        Args:
            throttle: the connection's.
            retries: most attempts after the first.
            idempotent: whether repetition changes nothing. Otherwise there is another attempt
                only after one that the service has refused before it began.
            timeout_s: of all of them together; None means no limit.
            keyword: the client's keyword for it, where the call has none of its own.
            token: what each attempt shows.
            route: of the session that the call is about, which each attempt names.
        """
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        whose = f"`timeout` of the call, or `{keyword}` of the client"
        self.limit = f"{_seconds(timeout_s)} s ({whose})"
        self._request_id = (request_id.KEY, request_id.current())
        self.route = route
        self.prefix: Metadata = ()
        self._token = token
        self.vocabulary: vocabulary_pb2.VocabularyRef | None = None
        self._throttle = throttle
        self._retries = retries
        self._idempotent = idempotent
        self._failed = 0
        self._reason: LockstepError | None = None

    @property
    def metadata(self) -> Metadata:
        """Returns what the next attempt sends beside the request: its id, and a token of now."""
        named = () if self.route is None else self.route.metadata
        return (self._request_id, *named, *self.prefix, *bearer_token.metadata(self._token))

    @property
    def timeout_s(self) -> float | None:
        """Returns the time left, for the next attempt."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def succeed(self) -> None:
        """Takes that the call is answered, or has begun to be."""
        self._throttle.succeed()

    def pause_s(self, error: LockstepError) -> float:
        """Returns the time to wait before the next attempt.

        Args:
            error: how the last attempt has failed.

        Raises:
            LockstepError: why the call has failed, where it is not made again: waiting
                does not help, or takes longer than the time left. That an attempt met
                the deadline says less than why an earlier one failed.
        """
        if isinstance(error, DeadlineExceeded) and self._reason is not None:
            raise self._reason
        refused = isinstance(error, _REFUSALS) and error.retry_delay_s is not None
        if not may_pass(error) or not (self._idempotent or refused):
            raise error
        self._failed += 1
        self._reason = error
        paced = error.retry_delay_s is not None and self._failed == 1
        counts = not paced and _is_load(error)
        allowed = self._throttle.fail(counts=counts)
        pause_s, left_s = self._pause_s(error.retry_delay_s), self.timeout_s
        if (
            not allowed
            or self._failed > self._retries
            or (left_s is not None and pause_s >= left_s)
        ):
            raise error
        return pause_s

    def _pause_s(self, stated_s: float | None) -> float:
        """Returns the backoff, or the time that the service states where that is longer."""
        backoff_s = INITIAL_BACKOFF_S * BACKOFF_MULTIPLIER ** (self._failed - 1)
        pause_s = min(backoff_s, MAX_BACKOFF_S) * random.uniform(
            1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER
        )
        if stated_s is None:
            return pause_s
        return max(pause_s, stated_s * random.uniform(1, 1 + BACKOFF_JITTER))


def may_pass(error: LockstepError) -> bool:
    """Says whether the same call can succeed later: no answer came, or one that says when."""
    return isinstance(error, ConnectionFailed) or error.retry_delay_s is not None


def is_idempotent(request: Message) -> bool:
    """Says whether the method that takes this request may be called again."""
    return request.DESCRIPTOR.full_name in _IDEMPOTENT_REQUESTS


def _seconds(timeout_s: float | None) -> str:
    """Writes a limit without the digits of what has passed of it before the request."""
    if timeout_s is None:
        return "inf"
    return f"{timeout_s:.2g}" if timeout_s < 1 else f"{round(timeout_s, 1):g}"
