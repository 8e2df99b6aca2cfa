import numpy as np

from model_service.protocol import (
    CloseSession,
    DescribeSession,
    Rejected,
    SessionAnswer,
    SessionDescription,
)
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import CountingEngine, tokens


def best(scores) -> int:
    return int(np.frombuffer(scores.logits, dtype="<f4").argmax())


def test_opening_returns_the_distribution_after_each_prompt():
    engine = CountingEngine()
    engine.open(1, [4], [10, 11])
    (answer,) = engine.run()
    assert [row.position for row in answer.rows] == [1, 2]
    assert [best(row.scores[0]) for row in answer.rows] == [5, 12]


def test_a_step_appends_what_the_client_chose():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [20])
    (answer,) = engine.run()
    assert answer.rows[0].position == 2
    assert best(answer.rows[0].scores[0]) == 21


def test_a_row_without_tokens_rests():
    engine = CountingEngine()
    engine.open(1, [4], [8])
    engine.run()
    engine.step_session(2, [20], [])
    (answer,) = engine.run()
    assert [row.position for row in answer.rows] == [2, 1]
    assert answer.rows[1].scores == []


def test_a_step_with_no_tokens_at_all_is_answered():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [])
    (answer,) = engine.run()
    assert isinstance(answer, SessionAnswer)
    assert answer.rows[0].position == 1


def test_a_step_at_another_position_than_expected_changes_nothing():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [20], expected=[5])
    (event,) = engine.run()
    assert isinstance(event, Rejected)
    assert event.failure.arguments == {"row": 0, "expected": 5, "current": 1}
    engine.engine.handle(DescribeSession("s", request_id=3))
    (description,) = engine.run()
    assert description.rows == [[4]]


def test_a_step_beyond_the_reserved_length_is_refused():
    engine = CountingEngine()
    engine.open(1, [4], max_length=2)
    engine.run()
    engine.step_session(2, [5, 6])
    (event,) = engine.run()
    assert event.failure.error == "ContextLengthExceeded"


def test_two_steps_at_once_are_refused():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [5])
    engine.step_session(3, [6])
    events = engine.run()
    assert [type(event) for event in events] == [Rejected, SessionAnswer]
    assert events[0].failure.error == "SessionBusy"


def test_a_session_that_does_not_exist_is_not_found():
    engine = CountingEngine()
    engine.step_session(2, [5])
    (event,) = engine.run()
    assert event.failure.error == "SessionNotFound"


def test_sampling_returns_a_token_and_appends_it_only_when_asked():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [5], sample=True)
    (answer,) = engine.run()
    assert (answer.rows[0].sampled_token_id, answer.rows[0].position) == (6, 2)
    engine.step_session(3, [6], sample=True, append=True)
    (answer,) = engine.run()
    assert (answer.rows[0].sampled_token_id, answer.rows[0].position) == (7, 4)
    engine.step_session(4, [])  # the appended token passes through the model now
    (answer,) = engine.run()
    assert best(answer.rows[0].scores[0]) == 8


def test_all_positions_of_a_step_can_be_had():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [10, 20, 30], logits=True, amount="full", positions="all")
    (answer,) = engine.run()
    assert [scores.position for scores in answer.rows[0].scores] == [2, 3, 4]
    assert [scores.token_id for scores in answer.rows[0].scores] == [20, 30, None]
    assert [best(scores) for scores in answer.rows[0].scores] == [11, 21, 31]


def test_listed_positions_are_counted_from_the_first_token_given():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    selection = {"logits": True, "amount": "full", "positions": "list", "position_list": (1,)}
    engine.step_session(2, [10, 20, 30], **selection)
    (answer,) = engine.run()
    assert [best(scores) for scores in answer.rows[0].scores] == [21]


def test_closing_frees_what_the_session_held():
    engine = CountingEngine()
    engine.open(1, [4], [8])
    engine.run()
    engine.engine.handle(CloseSession("s", request_id=2))
    (event,) = engine.run()
    assert isinstance(event, SessionDescription)
    assert engine.scheduler.kv_used_tokens == engine.places.session_tokens == 0
    assert len(engine.runner.free_slots) == 12


def test_closing_fails_the_call_that_uses_the_session():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.step_session(2, [5])
    engine.engine.handle(CloseSession("s", request_id=3))
    events = engine.run()
    assert [(type(event), event.request_id) for event in events] == [
        (SessionDescription, 3),
        (Rejected, 2),
    ]


def test_sessions_leave_room_for_generation():
    engine = CountingEngine(kv_tokens=40)
    engine.open(1, [4], max_length=21)
    (event,) = engine.run()
    assert event.failure.error == "KVCacheExceeded"
    engine.open(2, [4], max_length=20)
    engine.run()
    engine.generate(3, [4], new=15)
    assert len(tokens(engine.run(), 3)) == 15


def test_steps_and_generation_share_a_batch():
    engine = CountingEngine()
    engine.open(1, [4])
    engine.run()
    engine.generate(2, [8], new=4)
    engine.step()
    engine.step_session(3, [20])
    engine.step()
    assert engine.runner.steps[-1] == [(3, 1), (2, 1)]


def test_no_row_is_in_the_ring_before_its_answer_is():
    """Two rows of a call are found in different steps; a stream's rows come between.

    The front frees the ring up to the newest row it has read, so a row that was
    put earlier than it was reported could be overwritten unread.
    """
    engine = CountingEngine(chunk_tokens=16)
    engine.open(1, [4], [9] * 40)
    engine.generate(2, [8], new=6, selection=ScoreSelection(logits=True, amount="full"))
    put: list[int] = []
    reported: list[int] = []
    step = 0

    def note(row: memoryview) -> bytes:
        put.append(step)
        return bytes(row)

    engine.engine._put = note
    while (report := engine.engine.step()) is not None:
        for event in report.events:
            rows = event.rows if isinstance(event, SessionAnswer) else [event]
            reported += [step for row in rows for _ in row.scores]
        step += 1
    assert len(set(reported)) > 2
    assert put == reported


def test_a_sampled_token_that_fills_its_row_says_so():
    engine = CountingEngine()
    engine.open(1, [4], max_length=4)
    engine.run()
    reasons = []
    for request_id, ids in enumerate(([5], []), start=2):
        engine.step_session(request_id, ids, sample=True, append=True)
        (answer,) = engine.run()
        reasons.append(answer.rows[0].finish_reason)
    assert reasons == [None, "context_length"]
