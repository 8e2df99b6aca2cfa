"""Guided sequences: two rows that are admitted, drawn and freed together."""

import pytest

from model_service.protocol import Cancel
from tests.unit.model_service.engine.counting import CountingEngine, finish, tokens

GUIDED = {"guidance_scale": 2.0, "negative_prompt": (20, 21)}


def test_both_rows_get_the_same_tokens_and_share_their_steps():
    engine = CountingEngine()
    engine.generate(1, [4], config=GUIDED)
    # log-softmax of each: the successor of the prompt wins over that of the negative prompt.
    assert tokens(engine.run(), 1) == [5, 6, 7]
    assert engine.runner.steps == [[(1, 1), (1, 2)], [(1, 1), (1, 1)], [(1, 1), (1, 1)]]


def test_a_scale_below_one_follows_the_negative_prompt():
    engine = CountingEngine()
    engine.generate(1, [4], new=1, config={**GUIDED, "guidance_scale": 0.25})
    assert tokens(engine.run(), 1) == [22]


def test_no_negative_prompt_means_the_last_token_of_the_prompt():
    engine = CountingEngine()
    engine.generate(1, [9, 4], config={"guidance_scale": 0.0})
    assert tokens(engine.run(), 1) == [5, 6, 7]
    assert sorted(engine.runner.steps[0]) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("negative", [1, 40], ids=["shorter", "longer"])
def test_a_token_waits_until_both_rows_have_been_prefilled(negative):
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(2, [8], new=30)
    engine.step()
    prompt = list(range(10)) * 2 + [4]
    config = {"guidance_scale": 2.0, "negative_prompt": (3,) * negative}
    engine.generate(1, prompt, config=config)
    assert tokens(engine.run(), 1) == [5, 6, 7]


def test_rows_that_take_turns_wait_for_each_other():
    engine = CountingEngine(max_running=2)
    engine.open(9, [1], [2], [3])
    engine.run()
    engine.step_session(8, [5, 6], [5, 6], [5, 6])
    engine.generate(1, [4], new=6, config=GUIDED)
    assert tokens(engine.run(), 1) == [5, 6, 7, 8, 9, 10]


def test_both_rows_are_admitted_together_or_wait():
    engine = CountingEngine(max_running=3)
    engine.generate(1, [4], new=9)
    engine.generate(2, [4], new=2)
    engine.step()
    engine.generate(3, [4], config=GUIDED)
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    assert tokens(engine.run(), 3) == [5, 6, 7]


def test_both_rows_count_as_kv_cache():
    engine = CountingEngine(kv_tokens=8)
    engine.generate(1, [4], config=GUIDED)  # 1 + 3 and 2 + 3
    (event,) = engine.run()
    assert event.failure.error == "KVCacheExceeded"
    assert event.failure.arguments == {"kv_tokens": 9, "limit_tokens": 8}
    engine = CountingEngine(kv_tokens=9)
    engine.generate(1, [4], config=GUIDED)
    assert tokens(engine.run(), 1) == [5, 6, 7]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_cancelling_frees_both_rows(steps):
    engine = CountingEngine(max_running=2)
    engine.generate(1, [4], new=50, config=GUIDED)
    engine.generate(2, [4], new=50, config=GUIDED)
    for _ in range(steps):
        engine.step()
    engine.engine.handle(Cancel(1))
    engine.engine.handle(Cancel(2))
    engine.run()
    assert len(engine.runner.free_slots) == 10
    assert engine.scheduler.kv_used_tokens == engine.scheduler.num_running == 0


def test_the_end_frees_both_rows():
    engine = CountingEngine()
    engine.generate(1, [4], config={**GUIDED, "eos_token_ids": (6,)})
    events = engine.run()
    assert finish(events, 1).reason == "eos_token"
    assert len(engine.runner.free_slots) == 12
    assert engine.scheduler.kv_used_tokens == 0


def test_a_longer_negative_prompt_ends_the_sequence_at_the_context():
    engine = CountingEngine(context=10)
    config = {"guidance_scale": 2.0, "negative_prompt": (3,) * 8}
    engine.generate(1, [4], new=9, config=config)
    events = engine.run()
    assert tokens(events, 1) == [5, 6]
    assert finish(events, 1).reason == "context_length"


def test_logits_of_a_guide_that_are_not_finite_end_that_row_alone():
    engine = CountingEngine()
    engine.runner.poisoned_tokens.add(21)
    engine.generate(1, [4], config=GUIDED)
    engine.generate(2, [4])
    events = engine.run()
    assert finish(events, 1).failure.error == "NonFiniteLogits"
    assert tokens(events, 2) == [5, 6, 7]
    assert len(engine.runner.free_slots) == 12
