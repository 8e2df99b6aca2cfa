"""Prefix reuse, preemption and eviction change no token: against `generate`, float32."""

import pytest
import torch

from model_service.engine.schedule.prefill import PrefillClock
from model_service.protocol import (
    CloseSession,
    FlushPrefixCache,
    Generate,
    OpenSession,
    SequenceSpec,
    StepRow,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.engine_harness import InprocEngine, array, tokens_of

from .conftest import Pair
from .test_engine import FULL, NEW, assert_close, logits_of, make_prompts

SAMPLED = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2}


def submit(engine: InprocEngine, prompt: list[int], seed: int = 0, **arguments: object) -> int:
    """Queues one prompt that may reuse and be reused."""
    engine._next_id += 1
    config = arguments.pop("config", {})
    engine.handle(
        Generate(
            [SequenceSpec(prompt, seed)],
            engine.config(**{"max_new_tokens": NEW, **config}),
            revision=0,
            **{"cache_salt": "", **arguments},
            request_id=engine._next_id,
        )
    )
    return engine._next_id


@pytest.fixture
def emptied(pair: Pair):
    """The engine of a pair, and nothing left in it afterwards."""
    yield pair
    pair.engine.handle(FlushPrefixCache(request_id=1))
    pair.engine.drain()
    assert pair.engine.engine._places.used_tokens == 0
    for layer in pair.engine.engine._runner.cache.slot_layers:
        assert not layer.k.data.any()
        assert not layer.v.data.any()


def reused(engine: InprocEngine) -> int:
    return engine.engine._places.num_hit_tokens


def test_tokens_and_logits_after_a_reused_prefix_equal_generate(emptied):
    engine, prompts = emptied.engine, make_prompts(5)
    book = prompts[3]  # 40 tokens
    submit(engine, book)
    engine.drain()
    before = reused(engine)
    for length, rest in ((16, prompts[1]), (23, prompts[5]), (39, prompts[4]), (40, [])):
        prompt = book[:length] + rest
        expected = emptied.generate(prompt, NEW)
        request_id = submit(engine, prompt, selection=FULL)
        events = engine.drain()
        assert tokens_of(events, request_id, 1) == [expected.token_ids]
        assert_close(logits_of(events, request_id), expected.logits)
    assert reused(engine) - before >= 16 + 23 + 39 + 39


def test_equal_prompts_at_once_equal_generate(emptied):
    engine, prompt = emptied.engine, make_prompts(6)[3]
    before = reused(engine)
    expected = emptied.generate(prompt, NEW)
    ids = [submit(engine, prompt, selection=FULL) for _ in range(5)]
    events = engine.drain()
    for request_id in ids:
        assert tokens_of(events, request_id, 1) == [expected.token_ids]
        assert_close(logits_of(events, request_id), expected.logits)
    assert reused(engine) - before == 4 * 39


@pytest.mark.parametrize("salt", ["", None])
@pytest.mark.parametrize("config", [{}, SAMPLED])
def test_tokens_of_preempted_sequences_equal_those_without(emptied, config, salt, monkeypatch):
    engine, prompts = emptied.engine, make_prompts(7)
    alone = []
    for seed, prompt in enumerate(prompts):
        request_id = submit(engine, prompt, seed, config=config, cache_salt=None)
        alone += tokens_of(engine.drain(), request_id, 1)
    scheduler = engine.engine._scheduler
    # Every prompt in one step, however long the steps before it took.
    monkeypatch.setattr(scheduler, "_clock", PrefillClock(1.0))
    # None of these has its place for its age, which nobody could take away.
    monkeypatch.setattr(scheduler._waiting, "_num_taken", 0)
    scheduler._max_running, most = 5, scheduler._max_running
    before, events, ids = scheduler.num_preempted, [], []
    for seed, prompt in enumerate(prompts):  # each goes before the ones there are
        ids.append(submit(engine, prompt, seed, priority=-seed, config=config, cache_salt=salt))
        for _ in range(2):
            events += engine.step() or []
    events += engine.drain()
    scheduler._max_running = most
    assert scheduler.num_preempted - before >= 5
    assert [tokens_of(events, request_id, 1)[0] for request_id in ids] == alone


def test_steps_of_sessions_that_lost_their_place_equal_a_forward_pass(emptied):
    engine, prompts = emptied.engine, make_prompts(8)[2:5]
    places = engine.engine._places
    places.total_tokens, total = 130, places.total_tokens
    for index, prompt in enumerate(prompts):
        specs = [SequenceSpec(prompt, 0)]
        config = engine.config()
        engine.handle(OpenSession(f"s{index}", specs, config, 0, 60, FULL, request_id=800))
        engine.drain()
    recomputed = 0
    for step in range(9):
        index = step % len(prompts)
        prompts[index] = [*prompts[index], 11 * step]
        rows = [StepRow([11 * step], None)]
        selection = ScoreSelection(logits=True, amount="full")
        engine.handle(StepSession(f"s{index}", rows, selection, request_id=801))
        (answer,) = engine.drain()
        recomputed += answer.recomputed
        with torch.inference_mode():
            expected = emptied.model(torch.tensor([prompts[index]])).logits[0, -1]
        assert_close(torch.from_numpy(array(answer.rows[0].scores[0].logits)), expected)
    for index in range(len(prompts)):
        engine.handle(CloseSession(f"s{index}", request_id=802))
    engine.drain()
    places.total_tokens = total
    assert recomputed == 9  # there is room for two, and each in turn is the third
