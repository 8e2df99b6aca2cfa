"""Calls to the engine that somebody waits for: what has arrived, and who may start another."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from model_service.channel import RingReader
from model_service.generation import PositionScores
from model_service.messages import (
    Event,
    Rejected,
    SequenceTokens,
    SessionAnswer,
    SessionDescription,
    VocabularyGrown,
)
from rpc.errors import Overloaded, ServiceError, SlowConsumer

Answer = SessionAnswer | SessionDescription | VocabularyGrown

RETRY_DELAY_S = 0.25
MAX_RETRY_DELAY_S = 5.0
TOKEN_SCORE_BYTES = 120  # a struct of one int and two floats


class Call:
    """Events of one call, merged per row while nobody takes them. Never blocks the engine.

    Ends exactly once: with its last event or with an error, whatever comes
    first. What comes later is dropped.

    Attributes:
        request_id: the number that the engine knows the call by.
        unfinished_rows: rows that hold a permit.
        settled: whether the engine has sent the call's last event.
        error: why the call failed, or None.
        buffered_bytes: memory of the scores that wait to be taken.
    """

    def __init__(self, request_id: int, num_rows: int) -> None:
        self.request_id = request_id
        self.unfinished_rows = num_rows
        self.settled = False
        self.error: ServiceError | None = None
        self.buffered_bytes = 0
        self._waiting: dict[int, SequenceTokens] = {}
        self._waiting_since = 0.0
        self._answer: Answer | None = None
        self._wake = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether events that still come are of no interest."""
        return self.settled or self.error is not None

    def put_tokens(self, event: SequenceTokens) -> None:
        """Adds new tokens of a row; they join those of the row that still wait."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        waiting = self._waiting.setdefault(event.row, event)
        if waiting is not event:
            waiting.token_ids += event.token_ids
            waiting.scores += event.scores
            waiting.prompt_scores += event.prompt_scores
            waiting.finish = event.finish
        self.buffered_bytes += sum(_num_bytes(x) for x in (*event.scores, *event.prompt_scores))
        if event.finish is not None:
            self.unfinished_rows -= 1
            self.settled = self.unfinished_rows == 0
        self._wake.set()

    def put_answer(self, answer: Answer) -> None:
        """Ends the call with its only event."""
        self._answer = answer
        self.settled = True
        self._wake.set()

    def reject(self, error: ServiceError) -> None:
        """Ends the call with the engine's refusal."""
        self.settled = True
        self.fail(error)

    def fail(self, error: ServiceError) -> None:
        """Ends the call with an error, which whoever waits for events gets next."""
        if self.error is None:
            self.error = error
            self._waiting.clear()
            self.buffered_bytes = 0
            self._wake.set()

    def unread_s(self, now: float) -> float:
        """Returns how long events have been waiting to be taken, in seconds."""
        return now - self._waiting_since if self._waiting else 0.0

    async def answer(self) -> Any:
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
        """Waits for tokens: those of one step, or of several when the reader is slow.

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


class CallTable:
    """All calls in progress. Used by the event loop only.

    Every call holds one permit per unfinished row, so that what is admitted is
    bounded here and the engine never has to refuse for want of room.
    """

    def __init__(
        self,
        ring: RingReader,
        *,
        max_running_sequences: int,
        max_waiting_sequences: int,
        buffer_bytes: int,
        cancel: Callable[[int], None],
        error_of: Callable[[Rejected], ServiceError],
    ) -> None:
        """Starts without calls.

        Args:
            ring: where rows of logits come from.
            max_running_sequences: rows that run at once in the engine.
            max_waiting_sequences: rows admitted beyond that.
            buffer_bytes: scores kept for a call that does not take them; beyond
                it the call fails.
            cancel: tells the engine that nobody waits for a request id.
            error_of: turns a refusal of the engine into its error.
        """
        self._calls: dict[int, Call] = {}
        self._ring = ring
        self._max_running_sequences = max_running_sequences
        self._max_rows = max_running_sequences + max_waiting_sequences
        self._buffer_bytes = buffer_bytes
        self._cancel = cancel
        self._error_of = error_of
        self._last_request_id = 0

    def __bool__(self) -> bool:
        """Whether any call is in progress."""
        return bool(self._calls)

    @property
    def num_unfinished_rows(self) -> int:
        """Rows that run or wait, by the permits they hold."""
        return sum(call.unfinished_rows for call in self._calls.values())

    @contextmanager
    def open(self, num_rows: int) -> Iterator[Call]:
        """Registers a call for as long as the block runs; leaving it early cancels the call.

        Args:
            num_rows: permits that the call takes.

        Raises:
            Overloaded: there are not enough permits left.
        """
        unfinished = self.num_unfinished_rows
        if unfinished + num_rows > self._max_rows:
            delay_s = RETRY_DELAY_S * unfinished / self._max_running_sequences
            jitter = random.uniform(0.8, 1.2)  # keeps clients from coming at once
            raise Overloaded(
                "sequences", self._max_rows, retry_delay_s=min(MAX_RETRY_DELAY_S, delay_s * jitter)
            )
        call = Call(self.next_request_id(), num_rows)
        self._calls[call.request_id] = call
        try:
            yield call
        finally:
            del self._calls[call.request_id]
            self._abandon(call)

    def next_request_id(self) -> int:
        """Returns a number that no command has had before."""
        self._last_request_id += 1
        return self._last_request_id

    def deliver(self, event: Event) -> None:
        """Hands an event to its call. Rows leave the ring even when nobody wants them."""
        call = self._calls.get(event.request_id)
        wanted = call is not None and not call.ended
        self._take_rows(event, wanted)
        if call is None or not wanted:
            return
        if isinstance(event, Rejected):
            call.reject(self._error_of(event))
        elif isinstance(event, SequenceTokens):
            call.put_tokens(event)
            if call.buffered_bytes > self._buffer_bytes:
                self._fail_slow(call)
        else:
            call.put_answer(event)

    def fail_unread(self, now: float, timeout_s: float) -> None:
        """Fails the calls whose events nobody has taken for too long."""
        for call in self._calls.values():
            if call.unread_s(now) > timeout_s:
                self._fail_slow(call)

    def fail_all(self, error: ServiceError) -> None:
        """Fails every call."""
        for call in self._calls.values():
            call.fail(error)

    def _fail_slow(self, call: Call) -> None:
        """Fails a call and frees what it holds now: its reader may not come back for long."""
        call.fail(SlowConsumer(call.buffered_bytes))
        self._abandon(call)

    def _abandon(self, call: Call) -> None:
        if not call.settled:
            call.settled = True
            call.unfinished_rows = 0
            self._cancel(call.request_id)

    def _take_rows(self, event: Event, wanted: bool) -> None:
        if isinstance(event, SequenceTokens):
            event.scores = [self._take(scores, wanted) for scores in event.scores]
            event.prompt_scores = [self._take(scores, wanted) for scores in event.prompt_scores]
        elif isinstance(event, SessionAnswer):
            event.rows = [
                msgspec.structs.replace(
                    row, scores=[self._take(scores, wanted) for scores in row.scores]
                )
                for row in event.rows
            ]

    def _take(self, scores: PositionScores, wanted: bool) -> PositionScores:
        rows = {
            name: row
            for name, row in (("logits", scores.logits), ("scores", scores.scores))
            if row is not None
        }
        if wanted:
            return msgspec.structs.replace(
                scores, **{name: self._ring.take(row) for name, row in rows.items()}
            )
        for row in rows.values():
            self._ring.skip(row)
        return scores


def _num_bytes(scores: PositionScores) -> int:
    """Estimates the memory of one position's scores."""
    rows = sum(len(row) for row in (scores.logits, scores.scores) if isinstance(row, bytes))
    return rows + TOKEN_SCORE_BYTES * len(scores.tokens)
