"""Rows of beam searches: admitted together, moved with the fewest copies, freed together.

The counting model checks in every step that a row's slot holds the row's tokens.
"""

import math

import pytest

from model_service.protocol import Cancel, SequenceTokens
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import (
    BEST,
    VOCABULARY_SIZE,
    CountingEngine,
    finish,
    tokens,
)

BEAMS = {"num_beams": 3}
BEST_LOG_PROB = BEST - math.log(math.exp(BEST) + VOCABULARY_SIZE - 1)


def events_of(engine: CountingEngine, request_id: int) -> list[SequenceTokens]:
    return [
        event
        for event in engine.run()
        if isinstance(event, SequenceTokens) and event.request_id == request_id
    ]


def test_a_search_is_answered_at_once_with_its_score_and_beams():
    engine = CountingEngine()
    engine.generate(1, [9, 4], config=BEAMS)
    assert engine.step() == engine.step() == []
    (event,) = engine.step()
    assert event.token_ids == [5, 6, 7]
    assert event.finish.reason == "max_new_tokens"
    assert event.finish.sequence_score == pytest.approx(BEST_LOG_PROB)
    assert event.finish.beam_indices == [0, 0, 0]
    assert event.finish.steps == 3
    assert engine.step() == []


def test_the_prompt_takes_one_row_and_each_beam_one_from_then_on():
    engine = CountingEngine()
    engine.generate(1, [9, 4], config=BEAMS)
    engine.run()
    assert engine.runner.steps == [[(1, 2)], [(1, 1)] * 3, [(1, 1)] * 3]


def test_sequences_are_returned_best_first_with_rows_of_their_own():
    engine = CountingEngine()
    engine.generate(1, *[[4]] * 2, *[[20]] * 2, config=BEAMS, sequences_per_prompt=2)
    events = events_of(engine, 1)
    assert sorted(event.row for event in events) == [0, 1, 2, 3]
    by_row = {event.row: event for event in events}
    assert by_row[0].token_ids == [5, 6, 7]
    assert by_row[2].token_ids == [21, 22, 23]
    for best in (0, 2):
        first, second = by_row[best], by_row[best + 1]
        assert first.finish.sequence_score > second.finish.sequence_score
        assert first.token_ids != second.token_ids


def test_a_beam_that_goes_on_is_not_copied():
    engine = CountingEngine(max_running=2)
    copies = []
    beams = engine.engine._beams
    copy = beams._copy

    def count(source, target):
        copies.append(source.num_cached)
        copy(source, target)

    beams._copy = count
    # Two tokens are possible: the prompt's row is copied to the other once, and then each of
    # the four continuations of two beams is as good as its first token.
    config = {"num_beams": 2, "allowed_token_ids": (5, 6)}
    engine.generate(1, [4], new=2, config=config)
    engine.run()
    assert copies == [1]


def test_all_rows_are_admitted_together_or_wait():
    engine = CountingEngine(max_running=4)
    engine.generate(1, [4], new=2)
    engine.generate(2, [4], new=9)
    engine.step()
    engine.generate(3, [4], config=BEAMS)
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 3)
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (4, 0)
    assert tokens(engine.run(), 3) == [5, 6, 7]


def test_a_search_that_never_fits_is_rejected():
    engine = CountingEngine(kv_tokens=11)
    engine.generate(1, [4], config=BEAMS)  # 3 rows of 1 + 3
    (event,) = engine.run()
    assert event.failure.error == "KVCacheExceeded"
    assert event.failure.arguments == {"kv_tokens": 12, "limit_tokens": 11}
    engine = CountingEngine(kv_tokens=12)
    engine.generate(1, [4], config=BEAMS)
    assert tokens(engine.run(), 1) == [5, 6, 7]


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_cancelling_frees_all_rows(steps):
    engine = CountingEngine(max_running=3)
    engine.generate(1, [4], new=50, config=BEAMS)
    engine.generate(2, [4], new=50, config=BEAMS)
    for _ in range(steps):
        engine.step()
    engine.engine.handle(Cancel(1))
    engine.engine.handle(Cancel(2))
    assert engine.run() == []
    assert len(engine.runner.free_slots) == 11
    assert engine.scheduler.kv_used_tokens == engine.scheduler.num_running == 0


def test_the_end_frees_all_rows_for_others():
    engine = CountingEngine(max_running=3)
    engine.generate(1, [4], config=BEAMS)
    engine.generate(2, [14], config=BEAMS)
    events = engine.run()
    assert (tokens(events, 1), tokens(events, 2)) == ([5, 6, 7], [15, 16, 17])
    assert len(engine.runner.free_slots) == 11


def test_searches_share_their_steps_with_other_requests():
    engine = CountingEngine()
    engine.generate(1, [4], new=4, config=BEAMS)
    engine.generate(2, [14], new=4)
    events = engine.run()
    assert (tokens(events, 1), tokens(events, 2)) == ([5, 6, 7, 8], [15, 16, 17, 18])
    assert len(engine.runner.steps) == 4


def test_rows_that_take_turns_wait_for_each_other():
    engine = CountingEngine(max_running=3)
    engine.open(9, [1], [2], [3], [4], max_length=12)
    engine.run()
    engine.step_session(8, *[[5] * 7] * 4)
    engine.generate(1, [4], new=6, config=BEAMS)
    engine.step()
    for _ in range(5):
        engine.step_session(8, *[[5]] * 4)
        engine.step()
    assert tokens(engine.run(), 1) == [5, 6, 7, 8, 9, 10]


def test_logits_that_are_not_finite_end_their_search_alone():
    engine = CountingEngine(max_running=8)
    engine.runner.poisoned_tokens.add(6)
    engine.generate(1, *[[4]] * 2, config=BEAMS, sequences_per_prompt=2)
    engine.generate(2, [14], config=BEAMS)
    events = engine.run()
    assert tokens(events, 2) == [15, 16, 17]
    for row in (0, 1):
        failure = finish(events, 1, row).failure
        assert failure.error == "NonFiniteLogits"
        assert failure.arguments["row"] == row
    assert len(engine.runner.free_slots) == 16


def test_a_sequence_for_which_there_is_no_token_fails_by_itself():
    engine = CountingEngine()
    config = {**BEAMS, "allowed_token_ids": (5,)}
    engine.generate(1, *[[4]] * 2, config=config, sequences_per_prompt=2)
    events = engine.run()
    assert tokens(events, 1, 0) == [5, 5, 5]
    assert finish(events, 1, 1).failure.error == "NoTokenLeft"
    assert finish(events, 1, 1).failure.arguments == {"row": 1, "position": 1}


@pytest.mark.parametrize(
    ("config", "reason", "length"),
    [
        ({"eos_token_ids": (6,)}, "eos_token", 2),
        ({"stop_token_ids": (6,)}, "stop_token", 2),
        ({"stop_sequences": ((5, 6),)}, "stop_sequence", 2),
        ({"max_time": 1e-9}, "time_limit", 1),
    ],
)
def test_a_sequence_ends_as_without_beams(config, reason, length):
    engine = CountingEngine()
    engine.generate(1, [4], new=9, config={**BEAMS, "early_stopping": True, **config})
    events = engine.run()
    assert finish(events, 1).reason == reason
    assert tokens(events, 1) == [5, 6][:length]


def test_the_context_ends_a_search():
    engine = CountingEngine(context=6)
    engine.generate(1, [1, 2, 3, 4], new=9, config=BEAMS)
    events = engine.run()
    assert finish(events, 1).reason == "context_length"
    assert tokens(events, 1) == [5, 6]


def test_distributions_are_those_that_each_token_came_from():
    engine = CountingEngine()
    selection = ScoreSelection(logits=True, scores=True, amount="full")
    engine.generate(1, *[[4]] * 3, config=BEAMS, selection=selection, sequences_per_prompt=3)
    for event in events_of(engine, 1):
        before = [4, *event.token_ids]
        assert [position.position for position in event.scores] == [1, 2, 3]
        assert [position.token_id for position in event.scores] == event.token_ids
        total = 0.0
        for previous, position in zip(before, event.scores, strict=False):
            logits = memoryview(position.logits).cast("f")
            assert logits[(previous + 1) % VOCABULARY_SIZE] == BEST
            total += memoryview(position.scores).cast("f")[position.token_id]
        assert total / 3 == pytest.approx(event.finish.sequence_score, rel=1e-6)


def test_prompt_scores_come_with_every_sequence():
    engine = CountingEngine()
    selection = ScoreSelection(logits=True, amount="full", positions="all")
    engine.generate(
        1, *[[3, 4]] * 2, config=BEAMS, prompt_selection=selection, sequences_per_prompt=2
    )
    assert [len(event.prompt_scores) for event in events_of(engine, 1)] == [1, 1]


def test_drawn_beams_depend_on_the_seed_alone():
    config = {**BEAMS, "do_sample": True, "top_k": 0, "temperature": 5.0}
    alone = CountingEngine(max_running=8)
    alone.generate(1, [4], new=6, config=config)
    expected = tokens(alone.run(), 1)
    beside = CountingEngine(max_running=8)
    beside.generate(2, [20], [21], new=9, config={"do_sample": True})
    beside.step()
    beside.generate(1, [4], new=6, config=config)
    assert tokens(beside.run(), 1) == expected
    assert expected != [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_search_that_loses_its_places_gives_the_same_afterwards(steps):
    alone = CountingEngine(max_running=3)
    config = {**BEAMS, "do_sample": True, "temperature": 5.0, "top_k": 0}
    alone.generate(1, [4, 9], new=8, config=config)
    expected = tokens(alone.run(), 1)
    engine = CountingEngine(max_running=3)
    engine.generate(1, [4, 9], new=8, config=config, priority=1)
    for _ in range(steps):
        engine.step()
    engine.generate(2, [14], new=3)
    events = engine.run()
    assert engine.scheduler.num_preempted == 3
    assert tokens(events, 2) == [15, 16, 17]
    assert tokens(events, 1) == expected
