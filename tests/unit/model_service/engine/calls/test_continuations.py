"""Sessions that generate, and generations that are kept."""

import pytest

from model_service.protocol import (
    Cancel,
    CloseSession,
    DescribeSession,
    Failure,
    ForkSession,
    Rejected,
    SessionDescription,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import CountingEngine, finish, tokens

from .test_sessions import best

TOP = ScoreSelection(logits=True, amount="top_k", top_k=1)


def opened(*prompts: list[int], **options: object) -> CountingEngine:
    engine = CountingEngine()
    engine.open(1, *prompts, **options)
    engine.run()
    return engine


def test_rows_go_on_from_where_they_are_and_keep_their_tokens():
    engine = opened([4], [10, 11])
    engine.step_session(2, [7], [])
    engine.run()
    engine.continue_session(3, new=3)
    events = engine.run()
    assert tokens(events, 3, 0) == [8, 9, 10]
    assert tokens(events, 3, 1) == [12, 13, 14]
    assert engine.rows() == [[4, 7, 8, 9, 10], [10, 11, 12, 13, 14]]


def test_a_session_goes_on_with_steps_and_generations_in_any_order():
    engine = opened([4])
    engine.continue_session(2, new=2)
    engine.run()
    engine.step_session(3, [20])
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 21
    engine.step_session(4, [9], sample=True, append=True)
    engine.run()
    engine.continue_session(5, new=2)
    assert tokens(engine.run(), 5) == [11, 12]
    assert engine.rows() == [[4, 5, 6, 20, 9, 10, 11, 12]]


def test_what_a_generation_chose_last_is_seen_by_the_next_step():
    engine = opened([4])
    engine.continue_session(2, new=2)
    engine.run()
    engine.step_session(3, [])
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 7


def test_only_tokens_without_cache_pass_through_the_model():
    engine = opened([4, 5, 6, 7])
    engine.runner.steps.clear()
    engine.continue_session(2, new=3)
    events = engine.run()
    assert [length for ((_, length),) in engine.runner.steps] == [1, 1, 1]
    assert finish(events, 2).cached_prompt_tokens == 3
    assert finish(events, 2).steps == 3


@pytest.mark.parametrize(
    ("config", "reason", "length"),
    [
        ({"eos_token_ids": (7,)}, "eos_token", 3),
        ({"stop_token_ids": (6,)}, "stop_token", 2),
        ({"stop_sequences": ((5, 6),)}, "stop_sequence", 2),
        ({"max_new_tokens": 1}, "max_new_tokens", 1),
        ({"max_new_tokens": 50}, "context_length", 19),
    ],
)
def test_rows_of_a_session_end_as_generations_do(config, reason, length):
    engine = opened([4], max_length=20)
    engine.continue_session(2, config={"max_new_tokens": 8, **config})
    events = engine.run()
    assert finish(events, 2).reason == reason
    assert len(tokens(events, 2)) == length


def test_the_bound_on_new_tokens_counts_from_here():
    engine = opened([4])
    for request_id in (2, 3, 4):
        engine.continue_session(request_id, new=2)
        assert len(tokens(engine.run(), request_id)) == 2


def test_a_generation_has_its_own_configuration_and_the_session_keeps_its_own():
    engine = opened([4])
    engine.continue_session(2, new=2, config={"suppress_tokens": (5,)})
    assert tokens(engine.run(), 2)[0] != 5
    engine.do(TruncateSession("s", [1], request_id=3))
    engine.step_session(4, [4], sample=True)
    (answer,) = engine.run()
    assert answer.rows[0].sampled_token_id == 5


def test_processors_take_what_follows_the_sessions_prompt_as_generated():
    engine = opened([5, 4])
    penalized = {"presence_penalty": 9.0, "max_new_tokens": 1}
    engine.continue_session(2, config=penalized)
    assert tokens(engine.run(), 2) == [5]  # part of the prompt: not penalized
    engine.step_session(3, [4])
    engine.run()
    engine.continue_session(4, config=penalized)
    assert tokens(engine.run(), 4) == [0]  # 5 was generated


def test_scores_of_new_tokens_are_reported():
    engine = opened([4])
    engine.continue_session(2, new=2, selection=TOP)
    scores = [s for event in engine.run() for s in event.scores]
    assert [s.position for s in scores] == [1, 2]
    assert [s.tokens[0].token_id for s in scores] == [5, 6]


@pytest.mark.parametrize("num_steps", [0, 1, 2])
@pytest.mark.parametrize("pending", [False, True])
def test_a_cancelled_generation_leaves_no_trace_in_the_session(num_steps, pending):
    engine = opened([4], [9, 10])
    if pending:
        engine.step_session(2, [5], [11], sample=True, append=True)
    engine.run()
    before = engine.rows()
    engine.continue_session(3, new=3)
    for _ in range(num_steps):
        engine.step()
    engine.do(Cancel(3))
    assert engine.rows() == before
    assert engine.scheduler.active == []
    engine.step_session(4, [], [])
    (answer,) = engine.run()
    expected = [[7], [13]] if pending else [[], []]  # what was pending is pending again
    assert [[best(s) for s in row.scores] for row in answer.rows] == expected
    engine.continue_session(5, new=1)
    assert tokens(engine.run(), 5) == [before[0][-1] + 1]


@pytest.mark.parametrize("pending", [False, True])
def test_rows_cut_back_to_where_they_generated_from_are_as_they_were(pending):
    engine = opened([4])
    engine.step_session(2, [7], sample=pending, append=pending)
    engine.run()
    before = engine.rows()
    engine.continue_session(3, new=3)
    engine.run()
    engine.do(TruncateSession("s", [len(before[0])], request_id=4))
    engine.run()
    assert engine.rows() == before
    engine.step_session(5, [])
    (answer,) = engine.run()
    assert [best(scores) for scores in answer.rows[0].scores] == ([9] if pending else [])


def test_rows_that_were_stepped_since_they_generated_are_cut_as_any_others():
    engine = opened([4])
    engine.continue_session(2, new=2)
    engine.run()
    engine.continue_session(3, new=2)
    engine.run()
    engine.step_session(4, [20])
    engine.run()
    engine.do(TruncateSession("s", [3], request_id=5))
    engine.run()
    engine.step_session(6, [])
    (answer,) = engine.run()
    assert answer.rows[0].scores == []


def test_a_session_that_generates_is_busy():
    engine = opened([4])
    engine.continue_session(2)
    engine.step_session(3, [5])
    engine.continue_session(4)
    events = engine.run()
    refused = {e.request_id: e.failure.error for e in events if isinstance(e, Rejected)}
    assert refused == {3: "SessionBusy", 4: "SessionBusy"}
    assert tokens(events, 2) == [5, 6, 7]


def test_a_session_without_tokens_or_room_is_refused_as_a_whole():
    engine = opened([4], [5], max_length=2)
    engine.step_session(2, [], [6])
    engine.run()
    engine.continue_session(3)
    (event,) = engine.run()
    assert event.failure.error == "ContextLengthExceeded"
    assert event.failure.arguments["row"] == 1
    engine.do(TruncateSession("s", [0, 1], request_id=4))
    engine.continue_session(5)
    (event,) = engine.run()
    assert (event.failure.error, event.failure.arguments["field"]) == ("InvalidField", "session_id")
    assert engine.rows() == [[], [5]]


def test_an_unknown_session_cannot_go_on():
    engine = CountingEngine()
    engine.continue_session(1, "nowhere")
    assert engine.run() == [Rejected(1, Failure("SessionNotFound", {"session_id": "nowhere"}))]


def test_a_row_that_fails_ends_alone_and_the_session_stays():
    engine = opened([4], [5, 6])
    config = {"allowed_token_ids": (5, 6), "no_repeat_ngram_size": 1}
    engine.continue_session(2, new=2, config=config)
    events = engine.run()
    assert finish(events, 2, 0).reason == "max_new_tokens"
    assert finish(events, 2, 1).failure.error == "NoTokenLeft"
    assert engine.rows() == [[4, 5, 6], [5, 6]]
    engine.step_session(3, [7], [7])
    (answer,) = engine.run()
    assert [best(row.scores[0]) for row in answer.rows] == [8, 8]


def test_closing_a_session_ends_what_it_generates_where_it_is():
    engine = opened([4], [10])
    engine.continue_session(2, new=9, config={"eos_token_ids": (5,)})
    engine.step()
    events = engine.do(CloseSession("s", request_id=3))
    (description,) = [e for e in events if isinstance(e, SessionDescription)]
    assert description.rows == [[4, 5], [10, 11]]
    (ended,) = [e for e in events if e.request_id == 2]
    assert (ended.row, ended.token_ids, ended.finish.reason) == (1, [], "cancelled")
    assert engine.scheduler.kv_used_tokens == engine.places.session_tokens == 0
    assert engine.run() == []


def test_a_generation_can_be_kept_as_a_session():
    engine = CountingEngine()
    engine.generate_session(1, [4], [10, 11], new=2)
    events = engine.run()
    assert [tokens(events, 1, row) for row in (0, 1)] == [[5, 6], [12, 13]]
    assert engine.rows() == [[4, 5, 6], [10, 11, 12, 13]]
    engine.runner.steps.clear()
    engine.step_session(2, [20], [])
    (answer,) = engine.run()
    assert [best(row.scores[0]) for row in answer.rows] == [21, 14]
    (step,) = engine.runner.steps
    assert sorted(length for _, length in step) == [1, 2]  # what was chosen last, and 20


def test_a_kept_generation_counts_as_a_session_from_its_start():
    engine = CountingEngine(kv_tokens=80)
    engine.generate_session(1, [4], [5], max_length=20, new=2)
    engine.step()
    assert engine.places.session_tokens == 40
    engine.generate_session(2, [4], session_id="u", max_length=41)
    events = engine.run()
    refused = {e.request_id: e.failure.error for e in events if isinstance(e, Rejected)}
    assert refused == {2: "KVCacheExceeded"}
    assert engine.places.session_tokens == engine.scheduler.kv_used_tokens == 40
    assert engine.scheduler.num_running == 0
    engine.do(CloseSession("s", request_id=4))
    assert engine.scheduler.kv_used_tokens == engine.places.session_tokens == 0


def test_a_session_that_was_evicted_goes_on_as_if_it_had_not_been():
    engine = CountingEngine(kv_tokens=80)
    engine.open(1, [4, 5], [9])
    engine.run()
    engine.generate(2, [20], new=79)  # takes both of their places
    engine.run()
    assert None in [seq.slot for seq in engine.session().rows]
    engine.continue_session(3, new=2)
    events = engine.run()
    assert [tokens(events, 3, row) for row in (0, 1)] == [[6, 7], [10, 11]]
    assert engine.rows() == [[4, 5, 6, 7], [9, 10, 11]]


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_an_evicted_session_whose_generation_is_cancelled_is_as_before(num_steps):
    engine = CountingEngine(kv_tokens=80, chunk_tokens=16)
    prompt = [7] * 18
    engine.open(1, prompt, max_length=30)
    engine.run()
    engine.generate(2, [20], new=75)
    engine.run()
    assert [seq.slot for seq in engine.session().rows] == [None]
    engine.continue_session(3, new=4)
    for _ in range(num_steps):
        engine.step()
    engine.do(Cancel(3))
    assert engine.rows() == [prompt]
    engine.step_session(4, [])
    (answer,) = engine.run()
    assert answer.rows[0].scores == []
    engine.step_session(5, [11])
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 12


def test_scores_of_the_prompt_of_a_kept_generation_are_reported():
    engine = CountingEngine()
    everything = ScoreSelection(logits=True, amount="full", positions="all")
    engine.generate_session(1, [4, 5, 6], new=1, prompt_selection=everything)
    events = engine.run()
    (scores,) = [event.prompt_scores for event in events]
    assert [best(s) for s in scores] == [5, 6]


@pytest.mark.parametrize("num_steps", [0, 1])
def test_nothing_is_kept_of_a_generation_that_is_cancelled(num_steps):
    engine = CountingEngine()
    engine.generate_session(1, [4])
    for _ in range(num_steps):
        engine.step()
    engine.do(Cancel(1))
    assert gone(engine)


def test_nothing_is_kept_of_a_generation_in_which_a_row_fails():
    engine = CountingEngine()
    config = {"allowed_token_ids": (5, 6), "forced_prefix": (5,), "no_repeat_ngram_size": 1}
    engine.generate_session(1, [4], [6, 5], config=config)
    events = engine.run()
    assert finish(events, 1, 1).failure.error == "NoTokenLeft"
    assert len(tokens(events, 1, 0)) >= 1  # the others go on to their ends
    assert gone(engine)


def gone(engine: CountingEngine) -> bool:
    (event,) = engine.do(DescribeSession("s", request_id=99))
    used = engine.scheduler.kv_used_tokens, engine.places.session_tokens
    return isinstance(event, Rejected) and used == (0, 0) and engine.scheduler.active == []


def test_a_kept_generation_can_be_forked_and_go_on_in_both():
    engine = CountingEngine()
    engine.generate_session(1, [4], new=2)
    engine.run()
    engine.do(ForkSession("s", ["f"], [0], request_id=2))
    engine.continue_session(3, "f", new=2)
    assert tokens(engine.run(), 3) == [7, 8]
    (description,) = engine.do(DescribeSession("s", request_id=4))
    assert isinstance(description, SessionDescription)
    assert description.rows == [[4, 5, 6]]
