"""All calls to the engine in progress: who may start another, and whose an event is."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from model_service.front.engine_client.call import Call
from model_service.protocol import Event, Rejected, Request, SequenceTokens, SessionAnswer
from model_service.protocol.channel import RingReader
from model_service.protocol.generation import PositionScores
from rpc import identity
from rpc.errors import Overloaded, QuotaExceeded, ServiceError, SlowConsumer
from rpc.identity import caller
from rpc.places import Places, name_of_call

# How long a row takes, until some have ended.
USUAL_ROW_S = 0.25

# How much of the estimate is what the newest call has.
_NEWEST_SHARE = 0.1


class Calls:
    """All calls in progress. Used by the event loop only.

    Every call holds one permit per row of the engine that its unfinished rows
    stand for, so that what is admitted is bounded here and the engine never has
    to refuse for want of room.
    """

    def __init__(
        self,
        ring: RingReader,
        *,
        max_running_sequences: int,
        max_waiting_sequences: int,
        quota_sequences: int = 0,
        buffer_bytes: int,
        cancel: Callable[[int], None],
    ) -> None:
        """Starts without calls.

        Args:
            ring: where rows of logits come from.
            max_running_sequences: rows that run at once in the engine.
            max_waiting_sequences: rows admitted beyond that.
            quota_sequences: rows of one caller; 0 means no limit of its own.
            buffer_bytes: scores kept for a call that does not take them; beyond
                it the call fails.
            cancel: tells the engine that a request id is no longer waited for.
        """
        self._calls: dict[int, Call] = {}
        self._ring = ring
        self._places = Places(max_running_sequences, max_waiting_sequences, usual_s=USUAL_ROW_S)
        self._quota_sequences = quota_sequences
        self._buffer_bytes = buffer_bytes
        self._cancel = cancel
        self._last_request_id = 0
        self._rows_of_a_call = 1.0
        self._rows_of: Counter[str] = Counter()  # that callers have in progress

    def __bool__(self) -> bool:
        """Whether any call is in progress."""
        return bool(self._calls)

    @property
    def num_unfinished_rows(self) -> int:
        """Rows that run or wait, by the permits they hold."""
        return self._places.num_taken

    def check_room(self) -> None:
        """Checks that there is a permit for the call that this code runs for, before it is read.

        Raises:
            QuotaExceeded, Overloaded: there is none for its caller.
        """
        self._check_room(1, expected=round(self._rows_of_a_call))

    @contextmanager
    def open(self, request: Request[Any]) -> Iterator[Call]:
        """Registers a call for as long as the block runs; leaving it early cancels the call.

        Args:
            request: what begins the call. It gets a number that none has had before, and is
                made for whoever this code runs for.

        Raises:
            QuotaExceeded: the caller may not have so many permits.
            Overloaded: not enough are left.
        """
        num_rows = request.num_rows
        if num_rows:  # some calls of sessions run none
            self._rows_of_a_call += _NEWEST_SHARE * (num_rows - self._rows_of_a_call)
        self._check_room(num_rows, expected=num_rows)
        self._last_request_id += 1
        request.request_id = self._last_request_id
        request.principal = caller()
        call = Call(request)
        self._calls[call.request_id] = call
        self._places.take(name_of_call(), call.num_permits, time.monotonic())
        self._rows_of[call.principal] += call.num_permits
        try:
            yield call
        finally:
            del self._calls[call.request_id]
            self._abandon(call)

    def find(self, request_id: int) -> Call | None:
        """Returns a call in progress."""
        return self._calls.get(request_id)

    def deliver(self, event: Event) -> None:
        """Hands an event to its call. Rows leave the ring even if they are not wanted."""
        call = self._calls.get(event.request_id)
        wanted = call is not None and not call.ended
        self._take_rows(event, wanted)
        if call is not None and wanted:
            with self._releasing(call):
                self._put(call, event)
        if call is not None and call.buffered_bytes > self._buffer_bytes:
            self._fail_slow(call)

    def _put(self, call: Call, event: Event) -> None:
        if isinstance(event, Rejected):
            call.reject(event.failure)
        elif isinstance(event, SequenceTokens):
            call.put_tokens(event)
        else:
            call.put_answer(event)

    def fail_unread(self, now: float, timeout_s: float) -> None:
        """Fails the calls whose events were not taken for too long."""
        for call in self._calls.values():
            if call.unread_s(now) > timeout_s:
                self._fail_slow(call)

    def fail_all(self, error: ServiceError) -> None:
        """Fails every call."""
        for call in self._calls.values():
            call.fail(error)

    def _fail_slow(self, call: Call) -> None:
        """Fails a call and frees what it holds now: its reader may not come back for long."""
        error = SlowConsumer(call.buffered_bytes)
        call.fail(error)
        if call.rpc is not None:
            call.rpc.end(error)  # its handler waits in a write, and notices nothing else
        self._abandon(call)

    def _abandon(self, call: Call) -> None:
        if not call.settled:
            with self._releasing(call):
                call.leave()
            self._cancel(call.request_id)

    def _check_room(self, num_rows: int, *, expected: int) -> None:
        """Checks that there are permits, and gives a turn to a call for which there are not.

        Args:
            num_rows: permits that there have to be.
            expected: permits that it will need, as far as that is known.

        Raises:
            QuotaExceeded: its caller may not have so many.
            Overloaded: there are not.
        """
        places, now, own = self._places, time.monotonic(), self._rows_of[caller()]
        limit = identity.quota("sequences", self._quota_sequences)
        if limit and own + num_rows > limit:
            own_per_second = places.per_second(now) * own / max(places.num_taken, 1)
            delay_s = (own + num_rows - limit) / own_per_second if num_rows <= limit else None
            raise QuotaExceeded("sequences", limit, retry_delay_s=delay_s)
        name = name_of_call()
        if num_rows > places.free(name, now) and not self._is_fair(own + num_rows):
            delay_s = places.turn(name, expected, now)
            raise Overloaded("sequences", places.num_places, retry_delay_s=delay_s)

    def _is_fair(self, num_rows: int) -> bool:
        """Says whether a caller may have so many rows although others have taken everything.

        Each has a right to an even share. So with n callers there are at most
        1 + 1/2 + ... + 1/n times as many rows as are admitted.
        """
        callers = self._rows_of.keys() | {caller()}
        return len(callers) > 1 and num_rows <= self._places.num_places // len(callers)

    @contextmanager
    def _releasing(self, call: Call) -> Iterator[None]:
        """Takes back the permits that a call no longer needs after the block."""
        held = call.num_permits
        yield
        released = held - call.num_permits
        self._places.give_back(released, time.monotonic())
        self._rows_of[call.principal] -= released
        if not self._rows_of[call.principal]:
            del self._rows_of[call.principal]

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
