"""Calls to the engine, through a real process that counts instead of thinking."""

import asyncio
import os
import struct
import time
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from model_service.front.engine_client.call import service_error
from model_service.front.engine_client.client import EngineClient, LoadError
from model_service.front.engine_client.process import EngineProcess, engine_environment
from model_service.front.metrics import ModelMetrics
from model_service.protocol import (
    CloseSession,
    DescribeSession,
    EngineSettings,
    Failure,
    Generate,
    GrowVocabulary,
    NewRow,
    OpenSession,
    SequenceSpec,
    StepRow,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from rpc import errors
from tests.fakes import counting_engine
from tests.fakes.engine import engine

FULL = ScoreSelection(logits=True, amount="full", positions="new")
ENDLESS = GenerationConfig(max_new_tokens=10**9)
LAST = ScoreSelection(logits=True, amount="full")


def specs(*prompts: list[int]) -> list[SequenceSpec]:
    return [SequenceSpec(prompt, seed=0) for prompt in prompts]


def run(client: EngineClient, sequences: list[SequenceSpec], config: GenerationConfig, **options):
    return client.stream(Generate(sequences, config, revision=0, **options))


def opening(*prompts: list[int]) -> OpenSession:
    config = GenerationConfig(max_new_tokens=1)
    return OpenSession("s", specs(*prompts), config, revision=0, max_length=10, selection=LAST)


async def collect(call) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    async for events in call:
        for event in events:
            rows.setdefault(event.row, []).extend(event.token_ids)
    return rows


async def until_idle(client) -> None:
    async with asyncio.timeout(5):
        while client.load.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_rows_of_one_call_are_run_to_their_end():
    config = GenerationConfig(max_new_tokens=3)
    async with (
        engine() as client,
        run(client, specs([4], [9]), config) as call,
    ):
        assert await collect(call) == {0: [5, 6, 7], 1: [10, 11, 12]}
        assert client.num_unfinished_rows == 0


async def test_rows_of_logits_come_out_of_the_ring_unharmed():
    config = GenerationConfig(max_new_tokens=50)
    async with engine(ring_bytes=1024) as client:
        async with run(client, specs([4], [9]), config, selection=FULL) as call:
            positions = 0
            async for events in call:
                for event in events:
                    for token_id, scores in zip(event.token_ids, event.scores, strict=True):
                        logits = struct.unpack("<32f", scores.logits)
                        assert logits.index(max(logits)) == token_id
                        positions += 1
        assert positions == 100
        # Far more than the ring holds went through it: room was given back on the way.
        assert client._process.ring.consumed > 5000


async def test_rows_of_a_cancelled_call_give_their_room_in_the_ring_back():
    async with engine(ring_bytes=1024) as client:
        for _ in range(20):
            async with run(client, specs([4]), ENDLESS, selection=FULL) as call:
                await anext(call)
        config = GenerationConfig(max_new_tokens=40)
        async with run(client, specs([4]), config, selection=FULL) as call:
            assert len((await collect(call))[0]) == 40


async def test_leaving_a_call_frees_its_rows_in_the_engine():
    async with engine() as client:
        async with run(client, specs([4], [5]), ENDLESS) as call:
            await anext(call)
        assert client.num_unfinished_rows == 0
        await until_idle(client)


async def test_a_call_beyond_the_permits_is_refused_at_once_with_a_delay():
    async with engine() as client, run(client, specs(*[[4]] * 5), ENDLESS):
        with pytest.raises(errors.Overloaded) as caught:
            async with run(client, specs([4], [4]), ENDLESS):
                pass
        assert caught.value.metadata == {"resource": "sequences", "limit": "6"}
        assert 0 < caught.value.retry_delay_s < 1  # one more row than it can take has to end
        async with run(client, specs([4]), ENDLESS) as call:
            await anext(call)


async def test_a_finished_row_returns_its_permit_before_the_others_end():
    async with engine() as client:
        rows = specs([counting_engine.EOS_ID - 1], *[[4]] * 5)
        config = GenerationConfig(max_new_tokens=10**9, eos_token_ids=(counting_engine.EOS_ID,))
        async with run(client, rows, config) as call:
            async for events in call:
                if any(event.finish for event in events):
                    break
            assert client.num_unfinished_rows == 5


async def test_the_death_of_the_engine_fails_calls_and_says_why():
    async with engine() as client, run(client, specs([4]), ENDLESS) as call:
        await anext(call)
        with pytest.raises(errors.EngineLost):
            async with run(client, specs([counting_engine.DIES]), ENDLESS) as dying:
                await collect(dying)
        with pytest.raises(errors.EngineLost):
            await collect(call)
        assert client.lost.is_set()
        assert client.lost_reason == f"The engine ended with exit code {counting_engine.EXIT_CODE}."
        with pytest.raises(errors.EngineLost):
            async with run(client, specs([4]), ENDLESS):
                pass


async def test_an_engine_that_does_not_answer_counts_as_lost():
    async with engine(engine_stall_timeout_s=0.3) as client:
        with pytest.raises(errors.EngineLost):
            async with run(client, specs([counting_engine.HANGS]), ENDLESS) as call:
                await collect(call)
        assert client.lost_reason == "The engine does not answer."


async def test_an_engine_that_computes_for_long_is_not_lost():
    async with engine(engine_stall_timeout_s=0.5) as client:
        config = GenerationConfig(max_new_tokens=1)
        async with run(client, specs([counting_engine.WORKS]), config) as call:
            assert await collect(call) == {0: [counting_engine.WORKS + 1]}
        assert not client.lost.is_set()


async def test_an_engine_that_computes_without_end_counts_as_lost(monkeypatch):
    monkeypatch.setattr("model_service.front.engine_client.client.PATIENCE_WITH_WORK", 2)
    async with engine(engine_stall_timeout_s=0.3) as client:
        config = GenerationConfig(max_new_tokens=1)
        with pytest.raises(errors.EngineLost):
            async with run(client, specs([counting_engine.WORKS]), config) as call:
                await collect(call)


async def test_an_idle_engine_is_not_lost():
    async with engine(engine_stall_timeout_s=0.3) as client:
        await asyncio.sleep(0.8)
        config = GenerationConfig(max_new_tokens=1)
        async with run(client, specs([4]), config) as call:
            assert await collect(call) == {0: [5]}
        assert not client.lost.is_set()


async def test_an_engine_that_was_idle_gets_its_whole_time_to_answer():
    async with engine(engine_stall_timeout_s=0.8) as client:
        await asyncio.sleep(1.0)
        start = time.monotonic()
        with pytest.raises(errors.EngineLost):
            async with run(client, specs([counting_engine.HANGS]), ENDLESS) as call:
                await collect(call)
        assert time.monotonic() - start > 0.7


async def test_the_engine_ends_when_the_front_closes_its_socket():
    async with engine() as client:
        client._process._writer.close()
        await asyncio.wait_for(client.lost.wait(), 5)
        assert client.lost_reason == "The engine ended with exit code 0."


async def test_tokens_that_wait_are_merged_per_row():
    async with (
        engine() as client,
        run(client, specs([4], [9]), ENDLESS) as call,
    ):
        await anext(call)
        await asyncio.sleep(0.1)
        events = await anext(call)
        assert [event.row for event in events] == [0, 1]
        assert len(events[0].token_ids) > 5
        ids = events[0].token_ids
        assert all((b - a) % 32 == 1 for a, b in pairwise(ids))


async def test_a_reader_that_stalls_is_cut_off_and_its_rows_are_freed():
    async with engine(stream_stall_timeout_s=0.2) as client:
        async with run(client, specs([4]), ENDLESS) as call:
            await anext(call)
            await asyncio.sleep(0.8)
            assert client.num_unfinished_rows == 0
            with pytest.raises(errors.SlowConsumer):
                await anext(call)
        await until_idle(client)


async def test_a_reader_that_lets_rows_pile_up_is_cut_off_at_once():
    async with engine(buffer_bytes=2000) as client:
        async with run(client, specs([4]), ENDLESS, selection=FULL) as call:
            await asyncio.sleep(0.3)
            with pytest.raises(errors.SlowConsumer) as caught:
                await anext(call)
        assert 2000 < int(caught.value.metadata["bufferedBytes"]) < 2300


async def test_a_slow_reader_does_not_slow_others_down():
    async with engine() as client, run(client, specs([4]), ENDLESS) as slow:
        await anext(slow)
        config = GenerationConfig(max_new_tokens=30)
        async with (
            asyncio.timeout(5),
            run(client, specs([9]), config) as call,
        ):
            assert len((await collect(call))[0]) == 30


async def test_a_refusal_of_the_engine_is_its_error():
    async with engine() as client:
        with pytest.raises(errors.KVCacheExceeded):
            async with run(client, specs([counting_engine.REFUSED]), ENDLESS) as call:
                await collect(call)
        assert client.num_unfinished_rows == 0


async def test_a_failed_row_does_not_end_the_others():
    config = GenerationConfig(max_new_tokens=2)
    async with engine() as client:
        rows = specs([4], [counting_engine.FAILS])
        async with run(client, rows, config) as call:
            finishes = {}
            async for events in call:
                finishes |= {e.row: e.finish for e in events if e.finish}
    assert finishes[0].reason == "max_new_tokens"
    assert finishes[1].failure.error == "NonFiniteLogits"


async def test_a_session_is_opened_stepped_described_and_closed():
    async with engine() as client:
        opened = await client.ask(opening([4], [7, 8]))
        assert [row.position for row in opened.rows] == [1, 2]
        stepped = await client.ask(
            StepSession("s", [StepRow([5], 1), StepRow([], None)], LAST, sample=True)
        )
        assert [row.position for row in stepped.rows] == [2, 2]
        assert stepped.rows[0].sampled_token_id == 6
        assert (await client.ask(DescribeSession("s"))).rows == [[4, 5], [7, 8]]
        assert (await client.ask(CloseSession("s"))).rows == [[4, 5], [7, 8]]
        with pytest.raises(errors.SessionNotFound):
            await client.ask(DescribeSession("s"))


async def test_a_step_from_another_position_is_refused():
    async with engine() as client:
        await client.ask(opening([4]))
        with pytest.raises(errors.PositionConflict) as caught:
            await client.ask(StepSession("s", [StepRow([5], 3)], LAST))
        assert caught.value.metadata["currentPosition"] == "1"


async def test_an_abandoned_opening_leaves_no_session_behind():
    async with engine() as client:
        undone = asyncio.create_task(client.ask(opening([4]), undo=[CloseSession("s")]))
        await asyncio.sleep(0)
        undone.cancel()
        await asyncio.gather(undone, return_exceptions=True)
        with pytest.raises(errors.SessionNotFound):
            await client.ask(DescribeSession("s"))


async def test_growth_is_answered_with_the_new_size():
    async with engine() as client:
        row = NewRow(token_id=32, initialization="mean", generable=False)
        grown = await client.ask(GrowVocabulary(1, [row]))
        assert (grown.revision, grown.size) == (1, 33)


async def test_a_model_that_cannot_be_loaded_gives_the_reason():
    with pytest.raises(LoadError, match="This model is refused; take another"):
        async with engine("refused"):
            pass


async def test_a_process_that_ends_while_loading_gives_its_exit_code():
    process = EngineProcess(
        "tests.fakes.no_such_module",
        engine_environment({**os.environ, "PYTHONWARNINGS": "ignore"}, 1),
        ring_bytes=1024,
    )
    client = EngineClient(
        process,
        ModelMetrics(CollectorRegistry(), "none"),
        max_running_sequences=1,
        max_waiting_sequences=0,
        buffer_bytes=1,
        stream_stall_timeout_s=1.0,
        engine_stall_timeout_s=1.0,
    )
    with pytest.raises(LoadError, match="exit code 1"):
        await client.start(EngineSettings(socket_path="", ring_name="", model_folder="x"))
    await client.stop()


async def test_nothing_about_the_model_is_known_before_it_is_loaded():
    process = EngineProcess("tests.fakes.counting_engine", {}, ring_bytes=1024)
    client = EngineClient(
        process,
        ModelMetrics(CollectorRegistry(), "none"),
        max_running_sequences=1,
        max_waiting_sequences=0,
        buffer_bytes=1,
        stream_stall_timeout_s=1.0,
        engine_stall_timeout_s=1.0,
    )
    with pytest.raises(errors.Loading):
        _ = client.info
    await client.stop()


def test_an_error_nobody_knows_keeps_its_text_in_the_log():
    error = service_error(Failure("NoSuchError", {"detail": "secret"}))
    assert isinstance(error, errors.InternalError)
    assert "secret" not in str(error)


def test_known_errors_with_unknown_arguments_are_bugs_too():
    assert isinstance(service_error(Failure("Loading", {"x": 1})), errors.InternalError)


def test_the_engine_is_started_with_its_threads_and_offline():
    environment = engine_environment({"PATH": "/bin"}, 3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["PATH"] == "/bin"
