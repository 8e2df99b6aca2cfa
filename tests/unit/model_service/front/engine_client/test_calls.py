"""Calls in progress, without an engine."""

from contextlib import ExitStack

import pytest

from model_service.front.engine_client.calls import Calls
from model_service.protocol import (
    CloseSession,
    Failure,
    Finish,
    Generate,
    Rejected,
    SequenceSpec,
    SequenceTokens,
    SessionAnswer,
    SessionRowAnswer,
)
from model_service.protocol.channel import RingReader, RingWriter
from model_service.protocol.generation import PositionScores
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import (
    EngineLost,
    KVCacheExceeded,
    Overloaded,
    QuotaExceeded,
    SessionNotFound,
    SlowConsumer,
)
from tests.callers import called_by


def request(num_sequences: int = 1, *, num_beams: int = 1) -> Generate:
    config = GenerationConfig(max_new_tokens=1, num_beams=num_beams)
    sequences = [SequenceSpec([4], seed=0)] * num_sequences
    return Generate(sequences, config, revision=0, sequences_per_prompt=num_sequences)


class Ends:
    """Both ends of a ring, a table over it, and what it cancelled."""

    def __init__(self) -> None:
        self.reader = RingReader(1024)
        self.writer = RingWriter(self.reader.name)
        self.cancelled: list[int] = []
        self.table = Calls(
            self.reader,
            max_running_sequences=2,
            max_waiting_sequences=1,
            buffer_bytes=500,
            cancel=self.cancelled.append,
        )

    def scores(self, num_bytes: int = 100) -> PositionScores:
        row = self.writer.put(memoryview(b"x" * num_bytes))
        return PositionScores(position=1, token_id=1, logits=row)

    def tokens(self, request_id: int, *, finish=None, scored: bool = False) -> SequenceTokens:
        scores = [self.scores()] if scored else []
        return SequenceTokens(request_id, 0, [1], scores=scores, finish=finish)


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.writer.close()
    made.reader.close()


async def test_rows_that_nobody_waits_for_leave_the_ring(ends):
    ends.table.deliver(ends.tokens(99, scored=True))
    row = SessionRowAnswer(1, [ends.scores()])
    ends.table.deliver(SessionAnswer(99, [row], 0))
    assert ends.reader.consumed == 200


async def test_rows_that_somebody_waits_for_are_copied_at_once(ends):
    with ends.table.open(request()) as call:
        ends.table.deliver(ends.tokens(call.request_id, scored=True))
        assert ends.reader.consumed == 100
        (event,) = await anext(call)
        assert event.scores[0].logits == b"x" * 100


async def test_a_call_that_was_settled_is_not_cancelled(ends):
    with ends.table.open(request()) as call:
        ends.table.deliver(ends.tokens(call.request_id, finish=Finish("eos_token")))
    assert ends.cancelled == []


async def test_a_call_that_is_left_is_cancelled_once(ends):
    with ends.table.open(request()) as call:
        pass
    assert ends.cancelled == [call.request_id]


async def test_a_slow_call_is_cancelled_once_and_gives_its_permits_back(ends):
    with ends.table.open(request(3)) as call:
        for _ in range(7):
            ends.table.deliver(ends.tokens(call.request_id, scored=True))
        assert ends.cancelled == [call.request_id]
        with ends.table.open(request(3)), pytest.raises(SlowConsumer):
            await anext(call)
    assert ends.cancelled.count(call.request_id) == 1
    assert ends.reader.consumed == 700


async def test_a_refused_call_is_not_cancelled(ends):
    failure = Failure("KVCacheExceeded", {"kv_tokens": 2, "limit_tokens": 1})
    with ends.table.open(request()) as call:
        ends.table.deliver(Rejected(call.request_id, failure))
        with pytest.raises(KVCacheExceeded):
            await call.answer()
    assert ends.cancelled == []


async def test_a_call_holds_permits_for_the_rows_that_the_engine_runs(ends):
    with ends.table.open(request(2, num_beams=3)) as call:
        assert ends.table.num_unfinished_rows == 3
        with pytest.raises(Overloaded), ends.table.open(request()):
            pass
        ends.table.deliver(ends.tokens(call.request_id, finish=Finish("eos_token")))
        assert ends.table.num_unfinished_rows == 2
        with ends.table.open(request()):
            pass
    assert ends.table.num_unfinished_rows == 0


async def test_a_full_table_still_admits_a_caller_up_to_an_even_share(ends):
    with ExitStack() as open_calls:
        with called_by("greedy"):
            open_calls.enter_context(ends.table.open(request(3)))
            with pytest.raises(Overloaded), ends.table.open(request()):
                pass
        with called_by("small"):
            open_calls.enter_context(ends.table.open(request()))
            with pytest.raises(Overloaded), ends.table.open(request()):
                pass
        with called_by("third"):
            open_calls.enter_context(ends.table.open(request()))
        with called_by("fourth"), pytest.raises(Overloaded), ends.table.open(request()):
            pass
    assert ends.table.num_unfinished_rows == 0


async def test_a_caller_has_as_many_rows_in_progress_as_it_may(ends):
    with called_by("alice", quotas={"sequences": 1}), ends.table.open(request()):
        with pytest.raises(QuotaExceeded) as refused, ends.table.open(request()):
            pass
        assert refused.value.metadata == {"quota": "sequences", "limit": "1"}
        assert refused.value.retry_delay_s > 0
        with pytest.raises(QuotaExceeded) as refused, ends.table.open(request(2)):
            pass
        assert refused.value.retry_delay_s is None  # the call alone is larger
    with called_by("bob"), ends.table.open(request(2)):
        pass


async def test_the_engine_is_told_who_calls(ends):
    with called_by("alice"), ends.table.open(request()) as call:
        assert call.principal == "alice"


async def test_the_first_error_of_a_call_is_the_one_it_ends_with(ends):
    with ends.table.open(request()) as call:
        ends.table.fail_all(EngineLost())
        ends.table.deliver(
            Rejected(call.request_id, Failure("SessionNotFound", {"session_id": ""}))
        )
        with pytest.raises(EngineLost):
            await call.answer()
        assert not isinstance(call.error, SessionNotFound)


async def test_tokens_that_came_before_an_end_are_still_delivered(ends):
    with ends.table.open(request()) as call:
        ends.table.deliver(ends.tokens(call.request_id))
        ends.table.deliver(ends.tokens(call.request_id, finish=Finish("eos_token")))
        (event,) = await anext(call)
        assert event.token_ids == [1, 1]
        assert event.finish is not None
        with pytest.raises(StopAsyncIteration):
            await anext(call)


async def test_a_call_that_is_not_read_yet_is_told_when_one_like_those_before_it_fits(ends):
    table = Calls(
        ends.reader,
        max_running_sequences=4,
        max_waiting_sequences=2,
        buffer_bytes=500,
        cancel=ends.cancelled.append,
    )
    for _ in range(100):
        with table.open(request(3)):
            pass
        with table.open(CloseSession("a")):  # runs no rows
            pass
    with table.open(request(3)), table.open(request(3)), pytest.raises(Overloaded) as full:
        table.check_room()
    # Three rows have to end, of four that run at a time and take a quarter of a second each.
    assert full.value.retry_delay_s == pytest.approx(3 / 16)
