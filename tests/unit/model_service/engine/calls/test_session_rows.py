"""Cutting, copying and selecting the rows of sessions; looking ahead; giving up."""

import pytest

from model_service.protocol import (
    Cancel,
    CloseSession,
    ForkSession,
    Rejected,
    SelectSessionRows,
    SessionAnswer,
    TruncateSession,
)
from tests.unit.model_service.engine.counting import CountingEngine

from .test_sessions import best


def opened(*prompts: list[int], **arguments) -> CountingEngine:
    engine = CountingEngine(**arguments)
    engine.open(1, *prompts)
    engine.run()
    return engine


def predictions(engine: CountingEngine, *rows: list[int], **arguments) -> list[int | None]:
    """What is predicted after a step, by row."""
    engine.step_session(50, *rows, **arguments)
    (answer,) = engine.run()
    return [best(row.scores[-1]) if row.scores else None for row in answer.rows]


def assert_nothing_is_held(engine: CountingEngine, *session_ids: str) -> None:
    for session_id in session_ids or ("s",):
        engine.do(CloseSession(session_id, request_id=99))
    assert engine.scheduler.kv_used_tokens == engine.places.session_tokens == 0
    assert len(engine.runner.free_slots) == 12
    assert not any(engine.runner.written.values())
    assert engine.scheduler.active == []


# --- Truncate ------------------------------------------------------------------------------------


def test_a_truncated_row_goes_on_from_where_it_was_cut():
    engine = opened([4, 5, 6], [10, 11])
    (answer,) = engine.do(TruncateSession("s", [1, 2], request_id=2))
    assert [row.position for row in answer.rows] == [1, 2]
    assert predictions(engine, [20], []) == [21, None]
    assert engine.rows() == [[4, 20], [10, 11]]
    assert_nothing_is_held(engine)


def test_a_row_can_be_cut_to_nothing_and_begin_anew():
    engine = opened([4, 5])
    engine.do(TruncateSession("s", [0], request_id=2))
    assert predictions(engine, [7, 8]) == [9]
    assert engine.rows() == [[7, 8]]


def test_a_token_that_was_appended_unseen_can_be_cut():
    engine = opened([4])
    engine.step_session(2, [5], sample=True, append=True)
    engine.run()
    assert engine.rows() == [[4, 5, 6]]
    engine.do(TruncateSession("s", [2], request_id=3))
    assert predictions(engine, []) == [None]
    assert predictions(engine, [9]) == [10]


def test_freeing_clears_what_was_written_before_rows_were_cut():
    engine = opened([4, 5, 6, 7])
    engine.do(TruncateSession("s", [3], request_id=2))
    engine.do(TruncateSession("s", [1], request_id=3))
    engine.step_session(4, [8])
    engine.run()
    assert_nothing_is_held(engine)  # the runner checks the length that is freed


@pytest.mark.parametrize("lengths", [[2, 3], [2, -1]])
def test_cutting_beyond_a_row_names_it_and_changes_nothing(lengths):
    engine = opened([4, 5, 6], [10, 11])
    (event,) = engine.do(TruncateSession("s", lengths, request_id=2))
    assert event.failure.error == "InvalidField"
    assert event.failure.arguments["field"] == "positions[1]"
    assert engine.rows() == [[4, 5, 6], [10, 11]]


def test_processors_forget_the_ids_that_were_cut():
    engine = opened([4, 5, 6])
    (seq,) = engine.sessions.find("s").rows
    seq.choosing.processors = []
    engine.do(TruncateSession("s", [1], request_id=2))
    assert seq.choosing.processors is None
    assert seq.choosing.for_processors().prompt_token_ids == (4,)
    assert seq.num_prompt_tokens == 1


# --- Fork ----------------------------------------------------------------------------------------


def test_a_fork_goes_its_own_way():
    engine = opened([4, 5, 6], [10])
    (event,) = engine.do(ForkSession("s", ["f", "g"], [1, 0], request_id=2))
    assert event.positions == [1, 3]
    assert event.copied_bytes == 2 * (1 + 3) * 2  # two forks, four tokens, two bytes each
    assert event.kv_bytes == 2 * 20 * 2
    assert predictions(engine, [20], [21], session_id="f") == [21, 22]
    assert predictions(engine, [30], [], session_id="g") == [31, None]
    assert engine.rows("s") == [[4, 5, 6], [10]]
    assert engine.rows("f") == [[10, 20], [4, 5, 6, 21]]
    assert engine.rows("g") == [[10, 30], [4, 5, 6]]
    assert_nothing_is_held(engine, "s", "f", "g")


def test_a_fork_outlives_its_original():
    engine = opened([4, 5, 6])
    engine.do(ForkSession("s", ["f"], [0], request_id=2))
    engine.do(CloseSession("s", request_id=3))
    assert predictions(engine, [7], session_id="f") == [8]
    assert_nothing_is_held(engine, "f")


def test_a_fork_takes_an_unseen_token_along():
    engine = opened([4])
    engine.step_session(2, [5], sample=True, append=True)
    engine.run()
    (event,) = engine.do(ForkSession("s", ["f"], [0], request_id=3))
    assert (event.positions, event.copied_bytes) == ([3], 2 * 2)
    assert predictions(engine, [], session_id="f") == [7]
    assert predictions(engine, []) == [7]


def test_forks_for_which_there_is_no_room_take_the_tokens_only():
    engine = opened([4, 5], kv_tokens=50)  # room for two rows
    (event,) = engine.do(ForkSession("s", ["f", "g"], [0], request_id=2))
    assert event.copied_bytes == 2 * 2
    assert engine.places.session_tokens == 40
    assert predictions(engine, [20], session_id="f") == [21]
    assert predictions(engine, [], session_id="g") == [None]
    assert predictions(engine, [30], session_id="g") == [31]
    assert engine.rows("g") == [[4, 5, 30]]
    assert_nothing_is_held(engine, "s", "f", "g")


def test_a_fork_of_more_rows_than_there_will_ever_be_room_for_is_refused():
    engine = opened([4], kv_tokens=100)
    (event,) = engine.do(ForkSession("s", ["f"], [0, 0, 0], request_id=2))
    assert event.failure.error == "KVCacheExceeded"
    assert engine.places.session_tokens == 20
    assert_nothing_is_held(engine)


# --- SelectRows ----------------------------------------------------------------------------------


def test_selected_rows_are_dropped_repeated_and_reordered():
    engine = opened([4, 5], [10], [14, 15, 16])
    (answer,) = engine.do(SelectSessionRows("s", [2, 0, 2, 2], request_id=2))
    assert [row.position for row in answer.rows] == [3, 2, 3, 3]
    assert answer.kv_bytes == 4 * 20 * 2
    assert engine.places.session_tokens == 4 * 20
    assert predictions(engine, [1], [2], [3], []) == [2, 3, 4, None]
    assert engine.rows() == [[14, 15, 16, 1], [4, 5, 2], [14, 15, 16, 3], [14, 15, 16]]
    assert_nothing_is_held(engine)


def test_a_selection_gives_back_what_dropped_rows_held():
    engine = opened([4, 5], [10])
    engine.do(SelectSessionRows("s", [1], request_id=2))
    assert engine.scheduler.kv_used_tokens == 20
    assert len(engine.runner.free_slots) == 11
    assert predictions(engine, [11]) == [12]


def test_a_full_server_still_takes_a_selection_that_is_not_larger():
    engine = opened([4, 5], [10], kv_tokens=80)  # all that sessions may hold
    (answer,) = engine.do(SelectSessionRows("s", [1, 1], request_id=2))
    assert isinstance(answer, SessionAnswer)
    (event,) = engine.do(SelectSessionRows("s", [0, 1, 1], request_id=3))
    assert event.failure.error == "KVCacheExceeded"
    assert engine.rows() == [[10], [10]]
    assert_nothing_is_held(engine)


def test_a_selection_for_which_there_is_no_room_takes_the_tokens_only():
    engine = opened([4, 5], [10], kv_tokens=120)
    for request_id in (2, 3, 4):
        engine.open(request_id, [7], session_id=f"other{request_id}")
    engine.run()
    engine.do(SelectSessionRows("s", [0, 0, 0], request_id=5))
    assert engine.places.session_tokens == 120
    assert predictions(engine, [6], [7], [8]) == [7, 8, 9]
    assert engine.rows() == [[4, 5, 6], [4, 5, 7], [4, 5, 8]]
    assert_nothing_is_held(engine, "s", "other2", "other3", "other4")


# --- Looking ahead -------------------------------------------------------------------------------


def test_looking_ahead_answers_and_leaves_no_trace():
    engine = opened([4, 5], [10])
    engine.step_session(2, [20, 21], [], look_ahead=True, sample=True, append=True)
    (answer,) = engine.run()
    assert [row.position for row in answer.rows] == [2, 1]
    assert best(answer.rows[0].scores[0]) == 22
    assert answer.rows[0].sampled_token_id == 22
    assert engine.rows() == [[4, 5], [10]]
    assert predictions(engine, [6], [11]) == [7, 12]
    assert_nothing_is_held(engine)


def test_looking_ahead_leaves_an_unseen_token_to_be_seen():
    engine = opened([4])
    engine.step_session(2, [5], sample=True, append=True)
    engine.run()
    for _ in range(2):
        assert predictions(engine, [], look_ahead=True) == [7]
        assert predictions(engine, [9], look_ahead=True) == [10]
    assert predictions(engine, []) == [7]


# --- Giving up -----------------------------------------------------------------------------------


def test_a_step_that_is_given_up_is_undone_and_the_session_is_free():
    engine = opened([4, 5], [10], chunk_tokens=16)
    engine.step_session(2, [1] * 18, [20])  # row 0 needs two steps, row 1 one
    engine.step()
    assert engine.runner.steps[-1] != [(1, 1)]
    engine.engine.handle(Cancel(2))
    assert engine.rows() == [[4, 5], [10]]
    assert predictions(engine, [6], [11]) == [7, 12]
    assert_nothing_is_held(engine)


def test_a_step_that_is_given_up_before_it_ran_is_undone():
    engine = opened([4, 5])
    engine.step_session(2, [6])
    engine.engine.handle(Cancel(2))
    assert engine.rows() == [[4, 5]]
    assert_nothing_is_held(engine)


def test_what_was_found_out_before_giving_up_is_sent_to_leave_the_ring():
    engine = opened([4, 5], [10], chunk_tokens=16)
    engine.step_session(2, [1] * 18, [20])
    engine.step()
    (event,) = engine.do(Cancel(2))
    assert event.request_id == 2
    assert [len(row.scores) for row in event.rows] == [1]


def test_giving_up_what_has_ended_changes_nothing():
    engine = opened([4])
    engine.step_session(2, [5])
    engine.run()
    assert engine.do(Cancel(2)) == []
    assert engine.rows() == [[4, 5]]


def test_rows_cannot_change_during_a_step():
    engine = opened([4])
    engine.step_session(2, [5])
    for command in (
        TruncateSession("s", [0], request_id=3),
        ForkSession("s", ["f"], [0], request_id=4),
        SelectSessionRows("s", [0], request_id=5),
    ):
        engine.engine.handle(command)
    *refused, answer = engine.run()
    assert [event.failure.error for event in refused] == ["SessionBusy"] * 3
    assert all(isinstance(event, Rejected) for event in refused)
    assert answer.rows[0].position == 2
