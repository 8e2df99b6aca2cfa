"""Who gets a place, who loses one, and that nobody's outcome shows it."""

import pytest

from model_service.engine.schedule.waiting import MAX_PREEMPTIONS, TURNS_PER_AGED
from model_service.protocol import (
    Cancel,
    CloseSession,
    DescribeSession,
    ForkSession,
    SelectSessionRows,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.calls.test_sessions import best
from tests.unit.model_service.engine.counting import CountingEngine, finish, tokens

LONG = [7, 3, 9, 1] * 10  # 40 tokens


def order_of_first_steps(engine: CountingEngine) -> list[int]:
    """Request ids in the order in which they first ran."""
    seen: dict[int, None] = {}
    for step in engine.runner.steps:
        seen.update(dict.fromkeys(request_id for request_id, _ in step))
    return [*seen]


def running(engine: CountingEngine) -> list[int]:
    return [seq.call.request_id for seq in engine.scheduler.active]


def assert_nothing_is_held(engine: CountingEngine) -> None:
    engine.places.flush()
    assert engine.places.used_tokens == engine.places.session_tokens == 0
    assert len(engine.runner.free_slots) == engine.places.num_slots
    assert not any(engine.runner.written.values())
    assert engine.scheduler.active == []
    assert engine.scheduler.num_running == engine.scheduler.num_waiting == 0


# --- Turns ---------------------------------------------------------------------------------------


def test_a_call_with_many_sequences_does_not_hold_up_a_later_one():
    engine = CountingEngine(max_running=1)
    engine.generate(1, *([4] for _ in range(30)), new=1)
    engine.step()
    engine.generate(2, [8], new=1)
    engine.step()
    engine.step()
    assert 2 in order_of_first_steps(engine)


def test_calls_with_many_sequences_take_turns():
    engine = CountingEngine(max_running=1)
    engine.generate(1, *([4] for _ in range(6)), new=1)
    engine.generate(2, *([8] for _ in range(6)), new=1)
    engine.run()
    ran = [step[0][0] for step in engine.runner.steps]
    assert all(abs(ran[:n].count(1) - ran[:n].count(2)) <= 1 for n in range(12))


def test_a_stream_of_new_calls_does_not_hold_up_a_call_with_many_sequences():
    engine = CountingEngine(max_running=1)
    engine.generate(1, *([4] for _ in range(10)), new=1)
    for request_id in range(2, 72):
        engine.generate(request_id, [8], new=1)
        engine.step()
    ran = [step[0][0] for step in engine.runner.steps]
    assert ran.count(1) == 10  # with as many coming as are served, each round is one longer


def test_principals_take_turns_whatever_number_of_calls_they_make():
    engine = CountingEngine(max_running=1)
    for request_id in range(1, 9):
        engine.generate(request_id, [4], new=1, principal="many")
    engine.generate(101, *([8] for _ in range(4)), new=1, principal="one")
    engine.run()
    ran = [step[0][0] for step in engine.runner.steps]
    assert all(abs(2 * sum(i > 100 for i in ran[:n]) - n) <= 1 for n in range(8))


def test_the_calls_of_a_principal_take_turns_in_its_part():
    engine = CountingEngine(max_running=1)
    engine.generate(1, *([4] for _ in range(4)), new=1, principal="two")
    engine.generate(2, *([4] for _ in range(4)), new=1, principal="two")
    engine.generate(3, *([4] for _ in range(8)), new=1, principal="one")
    engine.run()
    ran = [step[0][0] for step in engine.runner.steps]
    assert all(abs(ran[:n].count(1) - ran[:n].count(2)) <= 1 for n in range(16))
    assert all(abs(2 * ran[:n].count(3) - n) <= 2 for n in range(16))


def test_who_comes_back_neither_catches_up_nor_waits_for_what_it_had():
    engine = CountingEngine(max_running=1)
    for request_id in range(1, 9):
        engine.generate(request_id, [4], new=1, principal="first")
    for _ in range(6):
        engine.step()
    engine.generate(101, *([8] for _ in range(6)), new=1, principal="late")
    for _ in range(4):
        engine.step()
    ran = [step[0][0] > 100 for step in engine.runner.steps[6:]]
    assert sorted(ran) == [False, False, True, True]


def test_a_sequence_of_low_priority_is_served_though_others_keep_coming():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=1, priority=1000)
    for request_id in range(2, 2 * TURNS_PER_AGED):
        engine.generate(request_id, [8], new=1, priority=-1000)
        engine.generate(request_id + 1000, [8], new=1, priority=-1000)
        engine.step()
    assert order_of_first_steps(engine).index(1) < TURNS_PER_AGED


def test_whoever_was_served_for_its_age_keeps_its_place():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=100, priority=1000)
    for request_id in range(2, 2 * TURNS_PER_AGED):
        engine.generate(request_id, [8], new=1, priority=-1000)
        engine.generate(request_id + 1000, [8], new=1, priority=-1000)
        engine.step()
    assert running(engine) == [1]


def test_sequences_that_belong_together_get_their_places_together():
    engine = CountingEngine(max_running=2)
    engine.generate(1, [4], new=3)
    engine.step()
    engine.generate(2, [8], new=2, config={"guidance_scale": 2.0})
    engine.step()
    assert running(engine) == [1]  # there is one place, which is not enough
    assert engine.scheduler.num_waiting == 2
    events = engine.run()
    assert engine.runner.steps[-1] == [(2, 1), (2, 1)]
    assert tokens(events, 2) == [9, 10]
    assert_nothing_is_held(engine)


def test_sequences_that_belong_together_lose_their_places_together():
    quiet, engine = CountingEngine(), CountingEngine(max_running=2)
    config = {"guidance_scale": 2.0}
    quiet.generate(1, LONG, new=6, priority=5, config=config)
    expected = tokens(quiet.run(), 1)
    engine.generate(1, LONG, new=6, priority=5, config=config)
    events = [event for _ in range(3) for event in engine.step()]
    engine.generate(2, [8], new=2)
    events += engine.step()
    assert running(engine) == [2]
    assert tokens(events + engine.run(), 1) == expected
    assert engine.scheduler.num_preempted == 2
    assert_nothing_is_held(engine)


# --- Long prompts --------------------------------------------------------------------------------


def test_a_stream_of_long_prompts_leaves_every_step_to_those_who_decode():
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(1, [4], new=30)
    engine.step()
    for request_id in range(2, 5):
        engine.generate(request_id, [request_id] * 100, new=1)
    engine.run()
    while_decoding = engine.runner.steps[:30]
    assert all((1, 1) in step for step in while_decoding)
    assert all(sum(length for _, length in step) <= 1 + 3 + 16 for step in while_decoding)


def test_a_short_prompt_does_not_wait_for_a_long_one():
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(1, [4] * 150, new=1)
    engine.step()
    engine.generate(2, [8, 9], new=1)
    engine.step()
    assert tokens(engine.step(), 2) == []
    assert (2, 2) in engine.runner.steps[1]


# --- Preemption ----------------------------------------------------------------------------------


def disturbed(engine: CountingEngine, *, priority: int = 0, **arguments) -> list:
    """A long generation of priority 5 whose place another one takes for a while."""
    engine.generate(1, LONG, new=12, priority=5, **arguments)
    events = [event for _ in range(4) for event in engine.step()]
    engine.generate(2, [8], new=3, priority=priority)
    return events + engine.run()


@pytest.mark.parametrize("limits", [{"max_running": 1}, {"kv_tokens": 55}])
def test_a_sequence_of_a_lower_number_takes_the_place_of_a_running_one(limits):
    engine = CountingEngine(**limits)
    events = disturbed(engine)
    assert tokens(events, 2) == [9, 10, 11]
    second = engine.runner.steps.index([(2, 1)])
    assert second == 4
    assert engine.scheduler.num_preempted == 1
    assert_nothing_is_held(engine)


def greedy(engine: CountingEngine, count: int = 12) -> list:
    """Lets one principal have everything, and much more waiting."""
    for request_id in range(1, count + 1):
        engine.generate(request_id, [4], new=50, principal="greedy")
    return engine.step()


def test_a_small_caller_beside_a_greedy_one_runs_in_the_next_step():
    engine = CountingEngine(max_running=4)
    greedy(engine)
    engine.generate(101, [8], new=2, principal="small")
    events = [*engine.step(), *engine.step()]
    assert tokens(events, 101) == [9, 10]
    assert engine.scheduler.num_preempted == 1


def test_what_a_greedy_caller_loses_goes_on_as_if_nothing_had_happened():
    engine = CountingEngine(max_running=4)
    events = greedy(engine)
    engine.generate(101, [8], new=2, principal="small")
    events += engine.run()
    expected = [(4 + n) % 32 for n in range(1, 51)]
    assert all(tokens(events, request_id) == expected for request_id in range(1, 13))
    assert_nothing_is_held(engine)


def test_places_are_taken_for_an_even_share_and_no_more():
    engine = CountingEngine(max_running=4)
    greedy(engine)
    engine.generate(101, *([8] for _ in range(4)), new=50, principal="small")
    for _ in range(5):
        engine.step()
        assert sum(request_id > 100 for request_id in running(engine)) == 2
    assert engine.scheduler.num_preempted == 2


def test_an_even_share_of_the_cache_is_one_too():
    engine = CountingEngine(max_running=8, kv_tokens=200)
    engine.generate(1, [4] * 10, [5] * 10, new=90, principal="greedy")  # 200 tokens
    engine.step()
    engine.generate(101, [8] * 10, new=10, principal="small")
    engine.step()
    assert 101 in running(engine)


def test_a_large_sequence_of_a_small_caller_waits_undisturbed_for_its_room():
    engine = CountingEngine(max_running=8, kv_tokens=200)
    engine.generate(1, [4] * 10, new=40, principal="greedy")  # 50 tokens
    engine.step()
    engine.generate(101, [8] * 10, new=160, principal="small")  # 170 tokens
    for request_id in range(2, 30):
        engine.generate(request_id, [4] * 10, new=40, principal="greedy")
    for _ in range(60):
        engine.step()
    assert 101 in running(engine)


def test_a_caller_of_a_higher_number_takes_no_place_for_its_share():
    engine = CountingEngine(max_running=2)
    greedy(engine)
    engine.generate(101, [8], new=2, priority=1, principal="small")
    engine.step()
    assert 101 not in running(engine)


def test_a_greedy_callers_oldest_sequence_is_passed_by_a_small_caller():
    engine = CountingEngine(max_running=2)
    greedy(engine, 60)
    for request_id in range(101, 140):
        engine.generate(request_id, [8], new=1, principal="small")
        events = [*engine.step(), *engine.step()]
        assert tokens(events, request_id) == [9]


@pytest.mark.parametrize("salt", ["", None])
def test_whoever_was_preempted_answers_as_if_nothing_had_happened(salt):
    config = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 1.5}
    quiet, engine = CountingEngine(), CountingEngine(max_running=1)
    quiet.generate(1, LONG, new=12, config=config, seeds=[11])
    expected = quiet.run()
    events = disturbed(engine, config=config, seeds=[11], cache_salt=salt)
    assert engine.scheduler.num_preempted == 1
    assert tokens(events, 1) == tokens(expected, 1)
    assert finish(events, 1).reason == finish(expected, 1).reason
    mine = [event for event in events if event.request_id == 1]
    assert [len(event.token_ids) for event in mine] == [1] * 12


@pytest.mark.parametrize("priority", [5, 6])
def test_no_place_is_taken_by_an_equal_or_a_higher_number(priority):
    engine = CountingEngine(max_running=1)
    disturbed(engine, priority=priority)
    assert engine.scheduler.num_preempted == 0


def test_the_newest_of_the_highest_number_loses_its_place():
    engine = CountingEngine(max_running=3)
    engine.generate(1, [4], new=9, priority=7)
    engine.generate(2, [5], new=9, priority=7)
    engine.generate(3, [6], new=9, priority=6)
    engine.step()
    engine.generate(4, [7], new=9, priority=0)
    engine.step()
    assert sorted(running(engine)) == [1, 3, 4]


def test_nobody_loses_a_place_in_vain():
    engine = CountingEngine(kv_tokens=100)
    engine.generate(1, [4], new=60, priority=0)
    engine.generate(2, [5], new=20, priority=5)
    engine.step()
    engine.generate(3, [6], new=79, priority=0)  # would not fit in the place of the second
    engine.step()
    assert running(engine) == [1, 2]


def test_a_place_is_taken_away_so_often_and_no_more():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=30, priority=5)
    engine.step()
    for request_id in range(2, 10):
        engine.generate(request_id, [8], new=1, priority=0)
        engine.step()
        engine.step()
    events = engine.run()
    assert engine.scheduler.num_preempted == MAX_PREEMPTIONS
    assert len(order_of_first_steps(engine)) == 9
    assert finish(events, 1).reason == "max_new_tokens"


def test_prompt_scores_of_a_preempted_sequence_are_reported_once():
    everything = ScoreSelection(logits=True, positions="all")
    engine = CountingEngine(max_running=1, chunk_tokens=16)
    engine.generate(1, LONG, new=1, priority=5, prompt_selection=everything)
    engine.step()
    engine.generate(2, [8], new=1)
    events = engine.run()
    assert engine.scheduler.num_preempted == 1
    (first,) = [event for event in events if event.request_id == 1]
    assert [scores.position for scores in first.prompt_scores] == list(range(1, 40))


def test_a_preempted_sequence_can_be_cancelled():
    engine = CountingEngine(max_running=1)
    engine.generate(1, LONG, new=9, priority=5)
    engine.step()
    engine.generate(2, [8], new=5)
    engine.step()
    engine.engine.handle(Cancel(1))
    assert engine.scheduler.num_waiting == 0
    assert tokens(engine.run(), 1) == []
    assert_nothing_is_held(engine)


# --- Waiting -------------------------------------------------------------------------------------


def test_a_sequence_whose_time_passed_in_the_queue_still_gets_its_token():
    engine = CountingEngine(max_running=1)
    engine.generate(1, [4], new=3)
    engine.generate(2, [8], new=5, config={"max_time": 1e-9})
    events = engine.run()
    assert tokens(events, 2) == [9]
    assert finish(events, 2).reason == "time_limit"


def test_cancelling_what_waits_lets_the_next_one_through():
    engine = CountingEngine(kv_tokens=100)
    engine.generate(1, [4], new=40)
    engine.step()
    engine.generate(2, [5], new=90)
    engine.generate(3, [6], new=40)
    engine.step()
    assert running(engine) == [1]  # the second goes before the third
    engine.engine.handle(Cancel(2))
    engine.step()
    assert running(engine) == [1, 3]
    assert 2 not in order_of_first_steps(engine)


# --- Eviction ------------------------------------------------------------------------------------


def with_sessions(*names: str, kv_tokens: int = 100, prompt=LONG, max_length=50) -> CountingEngine:
    engine = CountingEngine(kv_tokens=kv_tokens)
    for request_id, name in enumerate(names, 1):
        engine.open(request_id, prompt, session_id=name, max_length=max_length, salt=None)
        engine.run()
    return engine


def slots(engine: CountingEngine, name: str) -> list[int | None]:
    return [seq.slot for seq in engine.sessions.find(name).rows]


def test_the_session_used_longest_ago_makes_way_for_another():
    engine = with_sessions("a", "b")
    engine.step_session(10, [20], session_id="a")
    engine.run()
    engine.open(11, LONG, session_id="c", max_length=50)
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 2
    assert slots(engine, "b") == [None]
    assert None not in slots(engine, "a")
    assert engine.scheduler.num_evicted == 1


def test_whoever_opens_many_sessions_loses_their_own():
    engine = CountingEngine(kv_tokens=160)
    engine.open(1, LONG, session_id="victim", max_length=50, salt="a")
    for index in range(6):
        engine.open(2 + index, LONG, session_id=f"flood{index}", max_length=50, salt="b")
        engine.run()
    assert None not in slots(engine, "victim")
    assert engine.scheduler.num_evicted == 4


def test_a_session_that_lost_its_place_goes_on_and_says_so():
    engine = with_sessions("a", "b", "c")
    assert slots(engine, "a") == [None]
    engine.step_session(10, [20], session_id="a")
    (answer,) = engine.run()
    assert answer.recomputed
    assert best(answer.rows[0].scores[0]) == 21
    assert answer.rows[0].position == 41
    assert sum(length for step in engine.runner.steps for ids, length in step if ids == 10) == 41
    engine.step_session(11, [22], session_id="a")
    (answer,) = engine.run()
    assert not answer.recomputed


def test_all_positions_of_a_step_are_described_though_more_is_recomputed():
    engine = with_sessions("a", "b", "c")
    engine.step_session(
        10, [20, 10, 12], session_id="a", logits=True, amount="full", positions="all"
    )
    (answer,) = engine.run()
    assert [scores.position for scores in answer.rows[0].scores] == [41, 42, 43]
    assert [best(scores) for scores in answer.rows[0].scores] == [21, 11, 13]


def test_a_row_without_tokens_stays_without_a_place():
    engine = with_sessions("a", "b", "c")
    engine.step_session(10, [], session_id="a")
    (answer,) = engine.run()
    assert slots(engine, "a") == [None]
    assert not answer.recomputed
    assert answer.rows[0].scores == []


def test_a_session_without_a_place_is_cut_copied_selected_and_described():
    engine = with_sessions("a", "b", "c", "d", "e", kv_tokens=200)
    engine.do(TruncateSession("a", [3], request_id=10))
    (event,) = engine.do(ForkSession("a", ["f"], [0], request_id=11))
    assert event.copied_bytes == event.kv_bytes == 0
    engine.do(SelectSessionRows("f", [0, 0], request_id=12))
    assert engine.rows("f") == [[7, 3, 9]] * 2
    (description,) = engine.do(DescribeSession("a", request_id=13))
    assert (description.rows, description.kv_bytes) == ([[7, 3, 9]], 0)
    engine.step_session(14, [20], session_id="a")
    (answer,) = engine.run()
    assert (answer.rows[0].position, best(answer.rows[0].scores[0])) == (4, 21)
    for name in "abcdef":
        engine.do(CloseSession(name, request_id=15))
    assert_nothing_is_held(engine)


def test_looking_ahead_without_a_place_leaves_no_trace():
    engine = with_sessions("a", "b", "c")
    engine.step_session(10, [20], session_id="a", look_ahead=True)
    (answer,) = engine.run()
    assert answer.recomputed
    assert best(answer.rows[0].scores[0]) == 21
    assert engine.rows("a") == [LONG]
    engine.step_session(11, [], session_id="a")
    (answer,) = engine.run()
    assert answer.rows[0].scores == []


def test_an_unseen_token_is_still_unseen_after_the_place_is_lost():
    engine = with_sessions("a")
    engine.step_session(10, [20], session_id="a", sample=True, append=True)
    engine.run()
    for request_id, name in enumerate(("b", "c"), 11):
        engine.open(request_id, LONG, session_id=name, max_length=50)
    engine.run()
    assert slots(engine, "a") == [None]
    engine.step_session(13, [], session_id="a")
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 22


@pytest.mark.parametrize("num_steps", [0, 1])
def test_giving_up_a_step_without_a_place_undoes_it(num_steps):
    engine = with_sessions("a", "b", "c")
    engine.scheduler._max_step_tokens = 16
    engine.step_session(10, [20], session_id="a")
    for _ in range(num_steps):
        engine.step()
    engine.do(Cancel(10))
    assert engine.scheduler.num_waiting == 0
    assert engine.rows("a") == [LONG]
    engine.step_session(11, [22], session_id="a")
    (answer,) = engine.run()
    assert answer.recomputed
    assert best(answer.rows[0].scores[0]) == 23


def test_sessions_keep_their_share_while_others_generate():
    engine = with_sessions("a", kv_tokens=100)
    engine.generate(2, [4], new=40)
    engine.step()
    engine.generate(3, [5], new=40)
    engine.run()
    assert None not in slots(engine, "a")
    assert not [step for step in engine.runner.steps if (2, 1) in step and (3, 1) in step]


def test_sessions_over_their_share_make_way_for_those_who_generate():
    engine = with_sessions("a", "b", kv_tokens=100)
    engine.generate(3, [4], new=20)
    engine.step()
    assert running(engine) == [3]
    assert slots(engine, "a") == [None]
    assert None not in slots(engine, "b")


def test_sessions_make_way_when_nothing_else_goes_on():
    engine = with_sessions("a", kv_tokens=100)
    engine.generate(2, [4], new=80)
    assert len(tokens(engine.run(), 2)) == 80
    assert slots(engine, "a") == [None]


def test_a_session_waits_for_room_that_others_generate_in():
    engine = with_sessions("a", kv_tokens=100)
    engine.generate(2, [4], new=95)
    events = engine.step()
    engine.step_session(3, [20], session_id="a")
    events += engine.run()
    assert len(tokens(events, 2)) == 95
    assert best(events[-1].rows[0].scores[0]) == 21


def test_closing_a_session_that_waits_for_a_place_ends_its_call():
    engine = with_sessions("a", kv_tokens=100)
    engine.generate(2, [4], new=95)
    engine.step()
    engine.step_session(3, [20], session_id="a")
    engine.engine.handle(CloseSession("a", request_id=4))
    events = engine.run()
    assert "SessionNotFound" in [getattr(e, "failure", None) and e.failure.error for e in events]
    assert_nothing_is_held(engine)


def test_a_session_larger_than_its_share_is_refused():
    engine = CountingEngine(kv_tokens=100)
    engine.open(1, [4], [5], max_length=26)
    (event,) = engine.run()
    assert event.failure.error == "KVCacheExceeded"
    assert event.failure.arguments == {"kv_tokens": 52, "limit_tokens": 50}


def test_where_slots_are_fewer_than_sequences_these_take_turns():
    engine = CountingEngine(max_running=6, num_slots=2)
    for request_id in range(1, 6):
        engine.generate(request_id, [request_id + 3], new=3)
    events = engine.run()
    for request_id in range(1, 6):
        first = request_id + 4
        assert tokens(events, request_id) == [first, first + 1, first + 2]


def test_idle_sessions_give_their_slots_to_others_and_get_them_back():
    engine = CountingEngine(max_running=6, num_slots=2)
    engine.open(1, [4], [20], [9], session_id="a")  # more rows than slots
    engine.run()
    engine.generate(2, [30], new=2)
    assert tokens(engine.run(), 2) == [31, 0]
    engine.step_session(3, [5], [21], [10], session_id="a", sample=True)
    (answer,) = engine.run()
    assert [row.sampled_token_id for row in answer.rows] == [6, 22, 11]


def test_a_copy_for_which_there_is_no_slot_does_without():
    engine = CountingEngine(max_running=4, num_slots=2)
    engine.open(1, [4], [20])
    engine.run()
    engine.do(ForkSession("s", ["f"], [0, 1], request_id=2))
    assert all(seq.slot is None for seq in engine.session("f").rows)
    engine.step_session(3, [5], [21], session_id="f", sample=True)
    (answer,) = engine.run()
    assert [row.sampled_token_id for row in answer.rows] == [6, 22]
