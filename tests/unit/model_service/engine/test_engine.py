import numpy as np
import pytest

from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Cancel, Rejected
from model_service.protocol.generation import ScoreSelection

from .counting import (
    BEST,
    VOCABULARY_SIZE,
    CountingEngine,
    finish,
    tokens,
)


def test_a_sequence_counts_on_from_its_prompt():
    engine = CountingEngine()
    engine.generate(1, [4], new=3)
    events = engine.run()
    assert tokens(events, 1) == [5, 6, 7]
    assert finish(events, 1).reason == "max_new_tokens"


def test_a_late_request_joins_the_running_batch():
    engine = CountingEngine()
    engine.generate(1, [4], new=3)
    events = engine.step()
    engine.generate(2, [20, 21], new=3)
    events += engine.run()
    assert tokens(events, 1) == [5, 6, 7]
    assert tokens(events, 2) == [22, 23, 24]
    assert engine.runner.steps[1] == [(1, 1), (2, 2)]


def test_an_end_of_sequence_id_is_returned_and_ends_the_sequence():
    engine = CountingEngine()
    engine.generate(1, [4], new=9, config={"eos_token_ids": (6,)})
    events = engine.run()
    assert tokens(events, 1) == [5, 6]
    assert finish(events, 1).reason == "eos_token"


def test_end_of_sequence_wins_over_the_length_limit():
    engine = CountingEngine()
    engine.generate(1, [4], new=2, config={"eos_token_ids": (6,)})
    assert finish(engine.run(), 1).reason == "eos_token"


def test_a_stop_id_ends_the_sequence_with_its_own_reason():
    engine = CountingEngine()
    engine.generate(1, [4], new=9, config={"stop_token_ids": (7,)})
    events = engine.run()
    assert tokens(events, 1) == [5, 6, 7]
    assert finish(events, 1).reason == "stop_token"


def test_a_full_context_ends_the_sequence():
    engine = CountingEngine(context=4)
    engine.generate(1, [4], new=9)
    events = engine.run()
    assert tokens(events, 1) == [5, 6, 7]
    assert finish(events, 1).reason == "context_length"


def test_min_new_tokens_keeps_the_end_away():
    engine = CountingEngine()
    engine.generate(1, [4], new=4, config={"eos_token_ids": (5,), "min_new_tokens": 2})
    events = engine.run()
    assert 5 not in tokens(events, 1)[:2]


def test_rows_of_one_call_do_not_mix():
    engine = CountingEngine()
    engine.generate(1, [4], [10, 11], [20], new=2)
    events = engine.run()
    assert [tokens(events, 1, row) for row in range(3)] == [[5, 6], [12, 13], [21, 22]]


def test_a_sequence_waits_for_a_place_and_gets_it():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=2)
    engine.generate(2, [8], new=2)
    events = engine.run()
    assert tokens(events, 2) == [9, 10]
    assert [len(step) for step in engine.runner.steps] == [1, 1, 1, 1]


def test_lower_priority_numbers_go_first():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=1, priority=5)
    engine.generate(2, [8], new=1, priority=-5)
    engine.run()
    assert [step[0][0] for step in engine.runner.steps] == [2, 1]


def test_a_long_prompt_is_cut_into_chunks_while_others_decode():
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(1, [4], new=5)
    engine.step()
    engine.generate(2, [0] * 40, new=1)
    events = engine.run()
    assert engine.runner.steps[1:4] == [
        [(1, 1), (2, 16)],
        [(1, 1), (2, 16)],
        [(1, 1), (2, 8)],
    ]
    assert tokens(events, 2) == [1]


def test_cancelling_frees_the_slot_before_the_next_step():
    engine = CountingEngine()
    engine.generate(1, [4], new=100)
    engine.generate(2, [8], new=3)
    engine.step()
    engine.engine.handle(Cancel(1))
    events = engine.run()
    assert tokens(events, 1) == []
    assert tokens(events, 2) == [10, 11]
    assert len(engine.runner.free_slots) == 12
    assert engine.scheduler.kv_used_tokens == 0


def test_cancelling_a_waiting_sequence_never_runs_it():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=3)
    engine.generate(2, [8], new=3)
    engine.engine.handle(Cancel(2))
    engine.run()
    assert all(step[0][0] == 1 for step in engine.runner.steps)


def test_cancelling_what_has_finished_is_nothing():
    engine = CountingEngine()
    engine.generate(1, [4], new=1)
    engine.run()
    engine.engine.handle(Cancel(1))
    assert engine.run() == []


def test_a_sequence_waits_while_the_kv_cache_is_reserved():
    engine = CountingEngine(kv_tokens=10)
    engine.generate(1, [4], new=6)
    engine.generate(2, [8], new=6)
    events = engine.run()
    assert tokens(events, 2) == [9, 10, 11, 12, 13, 14]
    assert all(len(step) == 1 for step in engine.runner.steps)


def test_a_sequence_that_can_never_fit_is_refused():
    engine = CountingEngine(kv_tokens=10)
    engine.generate(1, [4], new=10)
    (event,) = engine.run()
    assert isinstance(event, Rejected)
    assert (event.failure.error, event.failure.arguments) == (
        "KVCacheExceeded",
        {"kv_tokens": 11, "limit_tokens": 10},
    )


def test_logits_that_are_not_numbers_end_their_row_and_no_other():
    engine = CountingEngine()
    engine.runner.poisoned.add(1)
    engine.generate(1, [4], new=3)
    engine.generate(2, [8], new=3)
    events = engine.run()
    failed = finish(events, 1)
    assert (failed.reason, failed.failure.error) == ("error", "NonFiniteLogits")
    assert tokens(events, 2) == [9, 10, 11]


def test_an_id_that_must_not_be_generated_is_passed_over():
    engine = CountingEngine()
    engine.runner.vocabulary.revisions[0] = RevisionRows(VOCABULARY_SIZE, (5,))
    engine.generate(1, [4], new=1)
    assert tokens(engine.run(), 1) == [0]  # all others are equal: the lowest id


def test_a_request_of_an_old_revision_never_sees_newer_ids():
    engine = CountingEngine()
    engine.runner.vocabulary.revisions[0] = RevisionRows(5, ())
    engine.generate(1, [4], new=1, selection=ScoreSelection(logits=True, amount="full"))
    (event,) = engine.run()
    assert len(event.scores[0].logits) == 5 * 4
    assert event.token_ids == [0]


def test_logits_of_each_new_token_are_those_it_was_chosen_from():
    engine = CountingEngine()
    engine.generate(1, [4], new=2, selection=ScoreSelection(logits=True, amount="full"))
    events = engine.run()
    for event, (position, token_id) in zip(events, [(1, 5), (2, 6)], strict=True):
        (scores,) = event.scores
        row = np.frombuffer(scores.logits, dtype="<f4")
        assert (scores.position, scores.token_id) == (position, token_id)
        assert row.argmax() == token_id
        assert row.max() == BEST


@pytest.mark.parametrize("kind", ["generate", "step", "continuation"])
@pytest.mark.parametrize(
    "config",
    [{}, {"do_sample": True, "seed_mode": "torch"}, {"renormalize_logits": True}],
    ids=["fast path", "torch's draws", "reference"],
)
def test_processed_scores_are_reported_where_they_are_asked_for_only(kind, config):
    """However the token is chosen: some ways need them, and others do without."""
    logits = ScoreSelection(logits=True, amount="full", logsumexp=True)
    engine = CountingEngine()
    if kind == "generate":
        engine.generate(1, [4], new=1, config=config, selection=logits)
        (event,) = engine.run()
        (reported,) = event.scores
    elif kind == "continuation":
        engine.open(1, [4], config=config)
        engine.run()
        engine.continue_session(2, new=1, config=config, selection=logits)
        (event,) = engine.run()
        (reported,) = event.scores
    else:
        engine.open(1, [4], config=config, logits=True, amount="full", logsumexp=True)
        (event,) = engine.run()
        (reported,) = event.rows[0].scores
    assert reported.logits is not None
    assert reported.scores is None
    assert reported.scores_logsumexp is None
    assert reported.scores_logprob is None


def test_the_distribution_of_every_prompt_token_but_the_first_can_be_had():
    engine = CountingEngine(chunk_tokens=16)
    prompt = [9] * 20 + [10]
    engine.generate(1, prompt, new=1, prompt_selection=ScoreSelection(logits=True, positions="all"))
    (event,) = engine.run()
    assert [scores.position for scores in event.prompt_scores] == list(range(1, 21))
    assert [scores.token_id for scores in event.prompt_scores] == prompt[1:]
    # 10 follows 9 with logit 5 among 31 zeros.
    expected = BEST - np.log(np.exp(BEST) + VOCABULARY_SIZE - 1)
    assert np.isclose(event.prompt_scores[-1].logits_logprob, expected)
