"""A step in which something fails: who ends, and who notices nothing."""

import weakref

import pytest
import torch

from model_service.protocol import Rejected

from .counting import CountingEngine, finish, tokens

BUG = RuntimeError("a shape does not fit")
SHORTAGE = torch.OutOfMemoryError("CUDA out of memory")


def rejection(events, request_id):
    (event,) = (e for e in events if isinstance(e, Rejected) and e.request_id == request_id)
    return event.failure


@pytest.mark.parametrize(("error", "told"), [(BUG, "InternalError"), (SHORTAGE, "MemoryExhausted")])
def test_only_the_sequences_that_fail_in_a_step_end(error, told):
    engine = CountingEngine()
    for request_id, prompt in enumerate(([4], [8], [12], [16])):
        engine.generate(request_id + 1, prompt, new=3)
    events = engine.step()
    engine.runner.failures[3] = error
    events += engine.run()
    assert [tokens(events, request_id) for request_id in (1, 2, 4)] == [
        [5, 6, 7],
        [9, 10, 11],
        [17, 18, 19],
    ]
    assert finish(events, 3).failure.error == told
    assert engine.scheduler.kv_used_tokens == 0


def test_memory_that_is_too_little_for_a_step_and_enough_for_half_of_it_fails_nobody():
    engine = CountingEngine()
    engine.runner.most_runs = 1
    for request_id, prompt in enumerate(([4], [8], [12])):
        engine.generate(request_id + 1, prompt, new=3)
    events = engine.run()
    assert [tokens(events, request_id) for request_id in (1, 2, 3)] == [
        [5, 6, 7],
        [9, 10, 11],
        [13, 14, 15],
    ]


def test_a_step_of_a_session_that_fails_is_undone_and_can_be_made_again():
    engine = CountingEngine()
    engine.open(1, [4], [8])
    engine.run()
    engine.runner.failures[2] = SHORTAGE
    engine.step_session(2, [5], [9])
    assert rejection(engine.run(), 2).error == "MemoryExhausted"
    assert engine.rows() == [[4], [8]]
    engine.step_session(3, [5], [9], sample=True)
    *_, answer = engine.run()
    assert [row.sampled_token_id for row in answer.rows] == [6, 10]


def test_a_step_that_fails_in_one_row_is_refused_before_anything_of_its_other_rows_is_told():
    engine = CountingEngine()
    engine.open(1, [4], [8])
    engine.run()
    engine.runner.failing_tokens.add(9)
    engine.step_session(2, [5], [9])
    told = [event for event in engine.run() if event.request_id == 2]
    assert isinstance(told[0], Rejected)
    assert engine.rows() == [[4], [8]]


def test_a_session_that_cannot_be_opened_leaves_nothing():
    engine = CountingEngine()
    engine.runner.failures[1] = BUG
    engine.open(1, [4], [8])
    assert rejection(engine.run(), 1).error == "InternalError"
    assert engine.sessions.find("s") is None
    assert engine.scheduler.kv_used_tokens == 0


def test_a_session_survives_the_generation_that_fails_in_it():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.runner.failures[2] = BUG
    engine.continue_session(2)
    assert finish(engine.run(), 2).failure.error == "InternalError"
    engine.continue_session(3, new=2)
    assert tokens(engine.run(), 3) == [5, 6]


@pytest.mark.parametrize("which", [{"num_beams": 2}, {"guidance_scale": 2.0}])
def test_rows_that_belong_together_end_together(which):
    engine = CountingEngine()
    engine.generate(1, [4], new=3, config=which)
    engine.generate(2, [8], new=3)
    engine.runner.failures[1] = SHORTAGE
    events = engine.run()
    assert finish(events, 1).failure.error == "MemoryExhausted"
    assert tokens(events, 2) == [9, 10, 11]
    assert engine.scheduler.kv_used_tokens == 0


def test_an_engine_in_which_nothing_passes_the_model_ends():
    engine = CountingEngine()
    engine.runner.failures |= {0: BUG, 1: BUG}
    engine.generate(1, [4])
    with pytest.raises(RuntimeError, match="shape"):
        engine.run()


def test_a_device_that_has_failed_ends_the_engine_at_once():
    engine = CountingEngine()
    engine.runner.failures[1] = torch.AcceleratorError("illegal memory access")
    engine.generate(1, [4])
    engine.generate(2, [8])
    with pytest.raises(torch.AcceleratorError):
        engine.run()


def test_what_a_failed_step_held_is_free_before_the_next_attempt():
    engine = CountingEngine()
    engine.generate(1, [4], new=1)
    forward, held = engine.runner.forward, []

    def short_once(runs):
        activations = torch.zeros(8)
        if not held:
            held.append(weakref.ref(activations))
            raise SHORTAGE
        assert held[0]() is None
        return forward(runs)

    engine.runner.forward = short_once
    assert tokens(engine.run(), 1) == [5]
