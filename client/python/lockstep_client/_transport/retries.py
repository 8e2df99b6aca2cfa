"""Whether and when a failed call is made again. Pure: the caller waits.

gRPC makes a second attempt by itself of a call that no server has looked at, for
example because the server was about to end the connection (`max_connection_age`). So
a step of a session is not lost to it, and is not made twice. Calls that stream have a
channel without this: where the new attempt of one cannot connect, gRPC ends the call
and never says so to its reader, and its deadline passes unnoticed
(grpc/grpc#41036). The rules here are those of a gRPC service config, and have its names.
"""

import random
import time
from typing import Final

import grpc
from google.protobuf.message import Message
from lockstep.v1 import (
    logits_session_service_pb2,
    model_info_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    vocabulary_admin_service_pb2,
)

from lockstep_client.exceptions import ConnectionFailed, DeadlineExceeded, LockstepError

MAX_ATTEMPTS: Final = 4
INITIAL_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 1.0
BACKOFF_MULTIPLIER: Final = 2.0
BACKOFF_JITTER: Final = 0.2
"""A backoff is up to this fraction shorter or longer."""

MAX_TOKENS: Final = 10
TOKEN_RATIO: Final = 0.1

# Methods whose repetition changes nothing. `AddTokens` and `SetSpecialTokens`
# are among them because this client always sends an idempotency key, and
# `Generate` because nothing of a failed attempt remains. Session steps are not:
# a step that was applied and whose answer was lost must be seen by the caller.
IDEMPOTENT_METHODS: Final = {
    "lockstep.v1.TokenizerService": (
        "Encode",
        "Decode",
        "Pad",
        "ApplyChatTemplate",
        "CountTokens",
        "ConvertTokens",
        "GetTokenizerInfo",
        "GetVocabulary",
        "GetTokenizerArtifact",
    ),
    "lockstep.v1.VocabularyAdminService": (
        "AddTokens",
        "SetSpecialTokens",
        "ListRevisions",
        "VerifyRevisions",
        "ExportRevisions",
    ),
    "lockstep.v1.ModelService": ("Generate", "GenerateStream", "Score", "ComputeLogits"),
    "lockstep.v1.LogitsSessionService": (
        "Truncate",
        "RebindSession",
        "GetSession",
        "ListSessions",
        "TouchSession",
    ),
    "lockstep.v1.ModelInfoService": (
        "GetModelInfo",
        "GetCapabilities",
        "ListLogitsProcessors",
        "GetLoad",
        "ValidateRequest",
    ),
}

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
    if method.name in IDEMPOTENT_METHODS.get(service.full_name, ())
)


class Throttle:
    """Ends repetition while most calls of a connection fail: it would add to the load.

    Threads share it without a lock: a count that is lost matters little.
    """

    def __init__(self) -> None:
        self._tokens = float(MAX_TOKENS)

    def succeed(self) -> None:
        """Counts a call that was answered."""
        self._tokens = min(self._tokens + TOKEN_RATIO, MAX_TOKENS)

    def fail(self) -> bool:
        """Counts a failure that may pass, and says whether to try again."""
        self._tokens = max(self._tokens - 1, 0)
        return self._tokens > MAX_TOKENS / 2


class Attempts:
    """The attempts of one call, all within its timeout.

    Attributes:
        deadline: by the monotonic clock, in seconds; None where there is none.
        limit: the timeout in words.
    """

    def __init__(
        self,
        throttle: Throttle,
        *,
        repeatable: bool,
        timeout_s: float | None,
        keyword: str = "timeout",
    ) -> None:
        """Begins with the first.

        Args:
            throttle: the connection's.
            repeatable: whether there may be a second one.
            timeout_s: of all of them together; None means no limit.
            keyword: the client's keyword for it, where the call has none of its own.
        """
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        whose = f"`timeout` of the call, or `{keyword}` of the client"
        self.limit = f"{float('inf') if timeout_s is None else timeout_s:g} s ({whose})"
        self._throttle = throttle
        self._max_attempts = MAX_ATTEMPTS if repeatable else 1
        self._failed = 0
        self._reason: LockstepError | None = None

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
        if not may_pass(error):
            raise error
        self._failed += 1
        self._reason = error
        pause_s = self._backoff_s() if error.retry_delay_s is None else error.retry_delay_s
        left_s = self.timeout_s
        repeats = self._throttle.fail() and self._failed < self._max_attempts
        if not repeats or (left_s is not None and pause_s >= left_s):
            raise error
        return pause_s

    def _backoff_s(self) -> float:
        backoff_s = INITIAL_BACKOFF_S * BACKOFF_MULTIPLIER ** (self._failed - 1)
        jitter = random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)
        return min(backoff_s, MAX_BACKOFF_S) * jitter


def may_pass(error: LockstepError) -> bool:
    """Says whether the same call can succeed later: no answer came, or one that says when."""
    if isinstance(error, ConnectionFailed):
        return True
    return error.code is grpc.StatusCode.UNAVAILABLE and error.retry_delay_s is not None


def is_idempotent(request: Message) -> bool:
    """Says whether the method that takes this request may be called again."""
    return request.DESCRIPTOR.full_name in _IDEMPOTENT_REQUESTS
