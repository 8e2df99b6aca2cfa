"""One call to the engine, and the part of its answer that was not taken yet."""

import asyncio
import secrets
import time
from typing import Any

import structlog

from model_service.front.engine_client import engine_spans
from model_service.front.metrics.generation_metrics import operation
from model_service.protocol import Failure, Request, Response, SequenceTokens, SessionAnswer
from model_service.protocol.generation import PositionScores
from rpc import errors, running_call, tracing
from rpc.errors import ServiceError

TOKEN_SCORE_BYTES = 120  # a struct of one int and two floats

log = structlog.stdlib.get_logger("model_service.front.engine_client.call")


class Call:
    """Events of one call, merged per row until they are taken. Never blocks the engine.

    Ends exactly once: with its last event or with an error, whatever comes
    first. What comes later is dropped.

    Attributes:
        request_id: the number that the engine knows the call by.
        settled: whether the engine has sent the call's last event, or was told to drop the call.
        error: why the call failed, or None.
        buffered_bytes: memory of the scores that wait to be taken.
        principal: who makes it.
        rpc: the RPC that takes the events, if it is one.
        operation: what its sequences are counted as, if it generates any.
        trace: of the RPC, if it has one.
    """

    def __init__(self, request: Request[Any]) -> None:
        """Starts a call without events.

        Args:
            request: what begins it, with its number.
        """
        self.request_id = request.request_id
        self.principal = request.principal
        self._unfinished = set(range(request.num_sequences))
        self._num_sequences = request.num_sequences
        self._num_permits = request.num_rows
        self.settled = False
        self.error: ServiceError | None = None
        self.buffered_bytes = 0
        self.rpc = running_call.current()
        self.operation = operation(request)
        self.trace = tracing.current()
        self._request = request
        self._sent_ns = time.time_ns()
        self._grown_at: dict[int, float] = {}
        self._first_ns: dict[int, int] = {}  # of each row's first tokens, where a trace is recorded
        self._waiting: dict[int, SequenceTokens] = {}
        self._waiting_since = 0.0
        self._answer: Response | None = None
        self._wake = asyncio.Event()

    @property
    def unfinished_rows(self) -> int:
        """Rows whose last event has not come."""
        return len(self._unfinished)

    @property
    def num_permits(self) -> int:
        """Permits that the unfinished rows of a call under way hold: their share, rounded up."""
        if self.settled or not self.unfinished_rows:
            return 0
        return -(-self.unfinished_rows * self._num_permits // self._num_sequences)

    @property
    def ended(self) -> bool:
        """Whether events that still come are of no interest."""
        return self.settled or self.error is not None

    def grown(self, row: int, now: float) -> float | None:
        """Notes that a row got tokens. Returns the time since it last did; None for the first."""
        before = self._grown_at.get(row)
        self._grown_at[row] = now
        return None if before is None else now - before

    def put_tokens(self, event: SequenceTokens) -> None:
        """Adds new tokens of a row to its tokens that still wait."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        waiting = self._waiting.setdefault(event.row, event)
        if waiting is not event:
            waiting.token_ids += event.token_ids
            waiting.scores += event.scores
            waiting.prompt_scores += event.prompt_scores
            waiting.finish = event.finish
        self.buffered_bytes += sum(_num_bytes(x) for x in (*event.scores, *event.prompt_scores))
        if self.trace is not None and self.trace.recorded:
            self._first_ns.setdefault(event.row, time.time_ns())
        if event.finish is not None:
            self._unfinished.discard(event.row)
            self.settled = not self._unfinished
            if self.trace is not None and self.trace.recorded:
                engine_spans.add_sequence(self.trace, self._sent_ns, event)
        self._wake.set()

    def put_answer(self, answer: Response) -> None:
        """Ends the call with its only event."""
        self._answer = answer
        self.settled = True
        if self.trace is not None and self.trace.recorded and isinstance(answer, SessionAnswer):
            engine_spans.add_session(self.trace, self._sent_ns, self._request, answer)
        self._wake.set()

    def reject(self, failure: Failure) -> None:
        """Ends the call with the engine's refusal."""
        self.settled = True
        self.fail(service_error(failure))

    def fail(self, error: ServiceError) -> None:
        """Ends the call with an error, which is raised in place of the next event."""
        if self.error is None:
            self.error = error
            self._waiting.clear()
            self.buffered_bytes = 0
            self._wake.set()

    def leave(self) -> None:
        """Takes that nobody waits any more for what has not come."""
        self.settled = True
        if self.trace is not None and self.trace.recorded:
            begun = {row: self._first_ns.get(row) for row in sorted(self._unfinished)}
            failure = "" if self.error is None else type(self.error).__name__
            engine_spans.add_unfinished(self.trace, self._sent_ns, begun, failure)

    def unread_s(self, now: float) -> float:
        """Returns how long events have been waiting to be taken, in seconds."""
        return now - self._waiting_since if self._waiting else 0.0

    async def answer(self) -> Response:
        """Waits for the call's only event.

        Raises:
            ServiceError: the call failed.
        """
        while self._answer is None:
            if self.error is not None:
                raise self.error
            await self._next()
        return self._answer

    def __aiter__(self) -> "Call":
        """Iterates over what arrives, see `__anext__`."""
        return self

    async def __anext__(self) -> list[SequenceTokens]:
        """Waits for the tokens of one step, or of several when the reader is slow.

        Returns:
            One event per row that advanced, in order of row.

        Raises:
            StopAsyncIteration: every row has finished and its last event was
                taken.
            ServiceError: the call failed.
        """
        while not self._waiting:
            if self.error is not None:
                raise self.error
            if self.settled:
                raise StopAsyncIteration
            await self._next()
        events = [self._waiting[row] for row in sorted(self._waiting)]
        self._waiting.clear()
        self.buffered_bytes = 0
        return events

    async def _next(self) -> None:
        self._wake.clear()
        await self._wake.wait()


def _num_bytes(scores: PositionScores) -> int:
    """Estimates the memory of one position's scores."""
    rows = sum(len(row) for row in (scores.logits, scores.scores) if isinstance(row, bytes))
    return rows + TOKEN_SCORE_BYTES * len(scores.tokens)


def service_error(failure: Failure) -> errors.ServiceError:
    """Builds the error that the engine named.

    A name or arguments that do not exist are a bug and become `InternalError`;
    the log has what they were.
    """
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, errors.ServiceError):
        try:
            return kind(**failure.arguments)
        except TypeError:
            pass
    request_id = f"engine-{secrets.token_hex(8)}"
    log.error(
        "engine_failure", request_id=request_id, error=failure.error, arguments=failure.arguments
    )
    return errors.InternalError(request_id)
