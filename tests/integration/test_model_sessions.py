"""Sessions against the real engine: the client drives the loop."""

import contextlib
import time

import grpc
import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2, scores_pb2

from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.integration.model_process import ragged, refusal

PROMPTS = [[5, 6, 7], [40, 41], [9] * 12]
TOP = scores_pb2.ScoreSelection(logits=True, top_k=1)


@pytest.fixture
def open_session(tiny_model):
    opened = []

    def open_one(*rows: list[int], **fields) -> pb.OpenSessionResponse:
        response = tiny_model.sessions.OpenSession(
            pb.OpenSessionRequest(prompt=ragged(*(rows or PROMPTS)), **fields)
        )
        opened.append(response.session_id)
        return response

    yield open_one
    for session_id in opened:
        try:
            tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=session_id))
        except grpc.RpcError as error:
            assert refusal(error).reason == "SESSION_NOT_FOUND"  # noqa: PT017


def step(service, session_id, *rows, **fields) -> pb.StepResponse:
    steps = [row if isinstance(row, pb.RowStep) else pb.RowStep(ids=row) for row in rows]
    return service.sessions.Step(pb.StepRequest(session_id=session_id, rows=steps, **fields))


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return refusal(caught.value)


def generate(service, config, *rows):
    response = service.model.Generate(
        model_service_pb2.GenerateRequest(
            prompt=ragged(*(rows or PROMPTS)), generation_config=config
        )
    )
    return response.sequences


def test_opening_returns_full_rows_of_logits_unless_asked(open_session):
    session = open_session()
    assert [row.position for row in session.rows] == [3, 2, 12]
    for scores in session.scores:
        (only,) = scores.scores
        assert list(only.logits.tensor.shape) == [VOCABULARY_SIZE]
    assert session.kv_bytes > 0


def test_a_loop_driven_by_the_client_gives_the_greedy_tokens_of_generate(tiny_model, open_session):
    config = {"max_new_tokens": 10, "eos_token_ids": {}}
    expected = [list(s.token_ids) for s in generate(tiny_model, config)]
    session = open_session(scores=TOP)
    chosen = [[row.scores[0].tokens[0].token_id] for row in session.scores]
    for _ in range(9):
        rows = [ids[-1:] for ids in chosen]
        answer = step(tiny_model, session.session_id, *rows)
        for ids, row in zip(chosen, answer.rows, strict=True):
            ids.append(row.scores[0].tokens[0].token_id)
    assert chosen == expected


def test_sampling_step_by_step_draws_the_tokens_of_generate(tiny_model, open_session):
    config = {"do_sample": True, "temperature": 0.9, "top_k": 50, "seed": 21}
    expected = generate(tiny_model, config | {"max_new_tokens": 6, "eos_token_ids": {}})
    session = open_session(
        *[prompt[:-1] or prompt for prompt in PROMPTS], generation_config=config, scores=TOP
    )
    assert [row.seed for row in session.rows] == [s.seed for s in expected]
    rows = [prompt[-1:] for prompt in PROMPTS]
    drawn = [[] for _ in PROMPTS]
    for _ in range(6):
        answer = step(tiny_model, session.session_id, *rows, sampling=pb.StepSampling())
        rows = [[row.sampled_token_id] for row in answer.rows]
        for ids, row in zip(drawn, rows, strict=True):
            ids += row
    assert drawn == [list(s.token_ids) for s in expected]


def test_appended_tokens_let_the_next_step_do_without_ids(tiny_model, open_session):
    config = {"max_new_tokens": 5, "eos_token_ids": {}}
    (expected,) = generate(tiny_model, config, PROMPTS[0])
    session = open_session(PROMPTS[0][:-1], scores=TOP)
    ids = PROMPTS[0][-1:]
    drawn = []
    for _ in range(5):
        answer = step(tiny_model, session.session_id, ids, sampling=pb.StepSampling(append=True))
        drawn.append(answer.rows[0].sampled_token_id)
        ids = []
    assert drawn == list(expected.token_ids)


def test_a_row_without_ids_is_left_alone(tiny_model, open_session):
    session = open_session()
    answer = step(tiny_model, session.session_id, [1], [], [2])
    assert [row.position for row in answer.rows] == [4, 2, 13]
    assert [len(row.scores) for row in answer.rows] == [1, 0, 1]


def test_several_tokens_are_appended_at_once(tiny_model, open_session):
    session = open_session(PROMPTS[0])
    everything = scores_pb2.ScoreSelection(
        logits=True, full=True, positions=scores_pb2.SCORE_POSITIONS_ALL
    )
    answer = step(tiny_model, session.session_id, [8, 9, 10], scores=everything)
    at_once = [np.frombuffer(s.logits.tensor.data, "<f4") for s in answer.rows[0].scores]
    assert [s.position for s in answer.rows[0].scores] == [4, 5, 6]
    other = open_session(PROMPTS[0])
    for index, token_id in enumerate([8, 9, 10]):
        single = step(tiny_model, other.session_id, [token_id]).rows[0].scores[0]
        logits = np.frombuffer(single.logits.tensor.data, "<f4")
        np.testing.assert_allclose(logits, at_once[index], atol=1e-4)


def test_listed_ids_come_in_the_order_asked(tiny_model, open_session):
    session = open_session(PROMPTS[0])
    selection = scores_pb2.ScoreSelection(logits=True, token_ids={"ids": [9, 3, 200]})
    answer = step(tiny_model, session.session_id, [1], scores=selection)
    assert [token.token_id for token in answer.rows[0].scores[0].tokens] == [9, 3, 200]


def test_a_step_returns_what_the_step_before_asked_for(tiny_model, open_session):
    session = open_session(PROMPTS[0])
    step(tiny_model, session.session_id, [1], scores=TOP)
    scores = step(tiny_model, session.session_id, [2]).rows[0].scores[0]
    assert len(scores.tokens) == 1
    assert not scores.HasField("logits")


def test_a_step_from_another_position_changes_nothing(tiny_model, open_session):
    session = open_session()
    wrong = pb.RowStep(ids=[1], expected_position=7)
    answer = refused(step, tiny_model, session.session_id, [1], wrong, [1])
    assert answer.code is grpc.StatusCode.ABORTED
    assert answer.reason == "POSITION_CONFLICT"
    assert dict(answer.info.metadata) == {
        "row": "1",
        "expectedPosition": "7",
        "currentPosition": "2",
    }
    state = tiny_model.sessions.GetSession(pb.GetSessionRequest(session_id=session.session_id))
    assert [list(row.tokens.ids) for row in state.rows] == PROMPTS


def test_the_state_of_a_session_rebuilds_it(tiny_model, open_session):
    session = open_session(generation_config={"seed": 4})
    step(tiny_model, session.session_id, [1], [2], [3])
    state = tiny_model.sessions.GetSession(pb.GetSessionRequest(session_id=session.session_id))
    expected = [[*p, n] for p, n in zip(PROMPTS, (1, 2, 3), strict=True)]
    assert [list(row.tokens.ids) for row in state.rows] == expected
    assert [row.seed for row in state.rows] == [row.seed for row in session.rows]
    assert state.effective_config == session.effective_config
    assert state.vocabulary == session.vocabulary
    assert abs(state.create_time.seconds - time.time()) < 60


def test_a_full_session_takes_no_more_tokens(tiny_model, open_session):
    session = open_session([5], max_length=3)
    step(tiny_model, session.session_id, [1, 2])
    answer = refused(step, tiny_model, session.session_id, [3])
    assert answer.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert "exceeds the session's max_length of 3 tokens" in answer.message
    answer = refused(step, tiny_model, session.session_id, [3] * 4)
    assert answer.message.startswith("Row 0 is given 4 tokens, which exceeds the session's max_len")


@pytest.mark.parametrize("length", [2, CONTEXT_LENGTH + 1])
def test_a_length_below_the_prompt_or_beyond_the_context_is_refused(open_session, length):
    answer = refused(open_session, [1, 2, 3], max_length=length)
    assert answer.reason == "INVALID_FIELD"
    assert answer.fields == ["max_length"]


@pytest.mark.parametrize(
    "ttl",
    [
        {"seconds": 0},
        {"seconds": 3601},
        {"seconds": 60, "nanos": 10**9},
        {"seconds": 60, "nanos": -1},
    ],
)
def test_an_idle_time_out_of_range_is_refused(tiny_model, open_session, ttl):
    assert refused(open_session, ttl=ttl).fields == ["ttl"]
    touch = pb.TouchSessionRequest(session_id=open_session().session_id, ttl=ttl)
    assert refused(tiny_model.sessions.TouchSession, touch).fields == ["ttl"]


def test_a_step_needs_one_entry_per_row(tiny_model, open_session):
    session = open_session()
    assert refused(step, tiny_model, session.session_id, [1]).fields == ["rows"]


def test_a_step_with_an_id_outside_of_the_vocabulary_is_refused(tiny_model, open_session):
    session = open_session()
    answer = refused(step, tiny_model, session.session_id, [1], [VOCABULARY_SIZE], [1])
    assert answer.reason == "TOKEN_ID_OUT_OF_RANGE"
    assert (answer.info.metadata["field"], answer.info.metadata["row"]) == ("rows", "1")


def state(service, session_id) -> list[list[int]]:
    response = service.sessions.GetSession(pb.GetSessionRequest(session_id=session_id))
    return [list(row.tokens.ids) for row in response.rows]


def top(row) -> int:
    return row.scores[-1].tokens[0].token_id


def test_a_repeated_step_id_returns_the_answer_and_changes_nothing(tiny_model, open_session):
    session = open_session([5, 6], scores=TOP)
    first = step(tiny_model, session.session_id, [7], step_id="a")
    again = step(tiny_model, session.session_id, [7], step_id="a")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.rows == first.rows
    assert state(tiny_model, session.session_id) == [[5, 6, 7]]
    other = step(tiny_model, session.session_id, [8], step_id="b")
    assert (other.replayed, other.rows[0].position) == (False, 4)


def test_a_repeated_step_returns_its_answer_whatever_became_of_the_rows(tiny_model, open_session):
    config = {"do_sample": True, "seed": 4}
    session = open_session([5, 6], [7], scores=TOP, generation_config=config)
    first = step(tiny_model, session.session_id, [8], [9], step_id="a", sampling=pb.StepSampling())
    tiny_model.sessions.SelectRows(
        pb.SelectRowsRequest(session_id=session.session_id, row_indices=[1])
    )
    again = step(tiny_model, session.session_id, [1], [2], step_id="a")
    assert again.replayed
    assert again.rows == first.rows
    assert [row.seed for row in again.rows] == [row.seed for row in session.rows]
    assert state(tiny_model, session.session_id) == [[7, 9]]


@pytest.mark.parametrize("named", [True, False])
def test_a_step_over_a_stream_that_broke_is_applied_at_most_once(tiny_model, open_session, named):
    session = open_session([5], scores=TOP)
    for attempt in range(20):
        position = len(state(tiny_model, session.session_id)[0])
        request = pb.StepRequest(
            session_id=session.session_id,
            rows=[pb.RowStep(ids=[1] * 5, expected_position=position)],
            step_id=f"step {attempt}" if named else "",
        )
        broken = tiny_model.sessions.StepStream(iter([pb.StepStreamRequest(step=request)]))
        time.sleep(0.0005 * attempt)
        broken.cancel()
        try:
            answer = when_free(over_a_stream(tiny_model), request)
        except grpc.RpcError as error:
            assert refusal(error).reason == "POSITION_CONFLICT"  # noqa: PT017 - it was applied
            assert not named
        else:
            assert answer.rows[0].position == position + 5
        assert len(state(tiny_model, session.session_id)[0]) == position + 5


def over_a_stream(service):
    def call(request: pb.StepRequest) -> pb.StepResponse:
        (answer,) = service.sessions.StepStream(iter([pb.StepStreamRequest(step=request)]))
        return answer.step

    return call


def test_a_step_with_a_name_is_finished_when_its_caller_gives_up(tiny_model, open_session):
    session = open_session([5])
    rows = [pb.RowStep(ids=[1] * 100)]
    request = pb.StepRequest(session_id=session.session_id, rows=rows, step_id="a")
    with pytest.raises(grpc.RpcError) as caught:
        tiny_model.sessions.Step(request, timeout=0.003)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = when_free(tiny_model.sessions.Step, request)
    assert answer.rows[0].position == 101
    assert state(tiny_model, session.session_id) == [[5] + [1] * 100]


def test_a_step_without_a_name_is_done_once_or_not_at_all_when_given_up(tiny_model, open_session):
    session = open_session([5], scores=TOP)
    rows = [pb.RowStep(ids=[1] * 100, expected_position=1)]
    request = pb.StepRequest(session_id=session.session_id, rows=rows)
    for timeout in (0.001, 0.003, 0.01):
        with contextlib.suppress(grpc.RpcError):
            tiny_model.sessions.Step(request, timeout=timeout)
    get = pb.GetSessionRequest(session_id=session.session_id)
    (row,) = when_free(tiny_model.sessions.GetSession, get).rows
    assert row.position in {1, 101}
    assert step(tiny_model, session.session_id, [2]).rows[0].position == row.position + 1


def when_free(call, request):
    deadline = time.monotonic() + 2
    while True:
        try:
            return call(request)
        except grpc.RpcError as error:
            if refusal(error).reason != "SESSION_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_looking_ahead_leaves_no_trace(tiny_model, open_session):
    session = open_session([5, 6], scores=TOP)
    ahead = step(tiny_model, session.session_id, [9, 9], look_ahead=True)
    assert ahead.rows[0].position == 2
    assert state(tiny_model, session.session_id) == [[5, 6]]
    fresh = open_session([5, 6, 9, 9], scores=TOP)
    assert top(ahead.rows[0]) == fresh.scores[0].scores[0].tokens[0].token_id


def test_a_truncated_session_goes_on_as_a_fresh_one_would(tiny_model, open_session):
    session = open_session([5, 6, 7], [40, 41], scores=TOP)
    response = tiny_model.sessions.Truncate(
        pb.TruncateRequest(session_id=session.session_id, positions=[1, 2])
    )
    assert [row.position for row in response.rows] == [1, 2]
    assert [row.seed for row in response.rows] == [row.seed for row in session.rows]
    answer = step(tiny_model, session.session_id, [8], [])
    fresh = open_session([5, 8], scores=TOP)
    assert top(answer.rows[0]) == fresh.scores[0].scores[0].tokens[0].token_id


def test_forks_go_their_own_way(tiny_model, open_session):
    session = open_session(scores=TOP, max_length=40)
    forked = tiny_model.sessions.Fork(
        pb.ForkRequest(session_id=session.session_id, count=2, row_indices=[2, 0])
    )
    assert len(set(forked.session_ids)) == 2
    bytes_per_token = session.kv_bytes // (3 * 40)
    assert forked.shared_kv_bytes == 0
    assert forked.copied_kv_bytes == 2 * (12 + 3) * bytes_per_token
    for index, name in enumerate(forked.session_ids):
        answer = step(tiny_model, name, [index], [])
        fresh = open_session([*PROMPTS[2], index], scores=TOP)
        assert top(answer.rows[0]) == fresh.scores[0].scores[0].tokens[0].token_id
        assert state(tiny_model, name) == [[*PROMPTS[2], index], PROMPTS[0]]
        tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=name))
    assert state(tiny_model, session.session_id) == PROMPTS


def test_selected_rows_keep_their_tokens_and_seeds(tiny_model, open_session):
    session = open_session(scores=TOP)
    response = tiny_model.sessions.SelectRows(
        pb.SelectRowsRequest(session_id=session.session_id, row_indices=[2, 2, 0, 2])
    )
    assert [row.position for row in response.rows] == [12, 12, 3, 12]
    assert [row.seed for row in response.rows] == [session.rows[i].seed for i in (2, 2, 0, 2)]
    answer = step(tiny_model, session.session_id, [1], [2], [3], [1])
    assert top(answer.rows[0]) == top(answer.rows[3])
    expected = [[*PROMPTS[2], 1], [*PROMPTS[2], 2], [*PROMPTS[0], 3], [*PROMPTS[2], 1]]
    assert state(tiny_model, session.session_id) == expected


@pytest.mark.parametrize(
    ("method", "fields", "wrong"),
    [
        ("Truncate", {"positions": [1, 1]}, ["positions"]),
        ("Truncate", {"positions": [3, 2, 13]}, ["positions[2]"]),
        ("Truncate", {"positions": [-1, 2, 12]}, ["positions[0]"]),
        ("Fork", {"row_indices": [0, 3]}, ["row_indices[1]"]),
        ("Fork", {"row_indices": [-1]}, ["row_indices[0]"]),
        ("Fork", {"count": -1}, ["count"]),
        ("Fork", {"count": 1000}, ["count"]),
        ("SelectRows", {"row_indices": [0, 3, -1]}, ["row_indices[1]", "row_indices[2]"]),
        ("SelectRows", {}, ["row_indices"]),
        ("SelectRows", {"row_indices": [0] * 1000}, ["row_indices"]),
        ("Step", {"rows": [{}] * 3, "step_id": "x" * 129}, ["step_id"]),
    ],
)
def test_a_call_that_names_what_is_not_there_is_refused(
    tiny_model, open_session, method, fields, wrong
):
    session = open_session()
    message = getattr(pb, f"{method}Request")(session_id=session.session_id, **fields)
    answer = refused(getattr(tiny_model.sessions, method), message)
    assert answer.reason == "INVALID_FIELD"
    assert answer.fields == wrong
    assert state(tiny_model, session.session_id) == PROMPTS


def test_a_stream_steps_the_session_that_its_first_message_names(tiny_model, open_session):
    session, unary = open_session([5], scores=TOP), open_session([5], scores=TOP)
    names = [session.session_id, "", session.session_id]
    requests = [
        pb.StepStreamRequest(step=pb.StepRequest(session_id=name, rows=[pb.RowStep(ids=[token])]))
        for name, token in zip(names, (6, 7, 8), strict=True)
    ]
    answers = [answer.step for answer in tiny_model.sessions.StepStream(iter(requests))]
    assert [answer.rows[0].position for answer in answers] == [2, 3, 4]
    expected = [step(tiny_model, unary.session_id, [token]) for token in (6, 7, 8)]
    assert [top(a.rows[0]) for a in answers] == [top(e.rows[0]) for e in expected]


def test_an_error_ends_the_stream_and_not_the_session(tiny_model, open_session):
    session = open_session([5])
    good, bad = pb.RowStep(ids=[6]), pb.RowStep(ids=[7], expected_position=9)
    requests = [
        pb.StepStreamRequest(step=pb.StepRequest(session_id=session.session_id, rows=[row]))
        for row in (good, bad, good)
    ]
    answers = tiny_model.sessions.StepStream(iter(requests))
    assert next(answers).step.rows[0].position == 2
    assert refused(next, answers).reason == "POSITION_CONFLICT"
    assert step(tiny_model, session.session_id, [7]).rows[0].position == 3


@pytest.mark.parametrize("names", [[""], ["s", "other"]])
def test_a_stream_is_about_one_session_and_says_which(tiny_model, open_session, names):
    session = open_session([5])
    requests = [
        pb.StepStreamRequest(
            step=pb.StepRequest(
                session_id=session.session_id if name == "s" else name, rows=[pb.RowStep(ids=[6])]
            )
        )
        for name in names
    ]
    answer = refused(lambda: list(tiny_model.sessions.StepStream(iter(requests))))
    assert answer.fields == ["step.session_id"]


def test_one_call_at_a_time_uses_a_session(tiny_model, open_session):
    session = open_session([5])
    request = model_service_pb2.GenerateStreamRequest(
        request={
            "session_id": session.session_id,
            "generation_config": {"max_new_tokens": 200, "min_new_tokens": 200},
        }
    )
    events = tiny_model.model.GenerateStream(request)
    next(events)
    answer = refused(step, tiny_model, session.session_id, [1])
    events.cancel()
    assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    assert answer.retry


def test_a_closed_session_is_gone(tiny_model, open_session):
    session = open_session()
    closed = tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=session.session_id))
    assert closed.token_count == sum(map(len, PROMPTS))
    answer = refused(step, tiny_model, session.session_id, [1], [1], [1])
    assert answer.reason == "SESSION_NOT_FOUND"


def test_an_idle_session_expires_and_a_touched_one_does_not(tiny_model, open_session):
    idle = open_session([5], ttl={"seconds": 1})
    touched = open_session([5], ttl={"seconds": 1})
    tiny_model.sessions.TouchSession(
        pb.TouchSessionRequest(session_id=touched.session_id, ttl={"seconds": 60})
    )
    time.sleep(1.2)
    assert refused(step, tiny_model, idle.session_id, [1]).reason == "SESSION_NOT_FOUND"
    assert step(tiny_model, touched.session_id, [1]).rows[0].position == 2


def test_sessions_are_listed_in_pages(tiny_model, open_session):
    opened = [open_session([5]).session_id for _ in range(3)]
    listed, token = [], ""
    while True:
        page = tiny_model.sessions.ListSessions(
            pb.ListSessionsRequest(page_size=2, page_token=token)
        )
        listed += [summary.session_id for summary in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert [session_id for session_id in listed if session_id in opened] == opened


@pytest.mark.parametrize("fields", [{"page_size": -1}, {"page_size": 1001}, {"page_token": "x"}])
def test_a_wrong_page_is_refused(tiny_model, fields):
    answer = refused(tiny_model.sessions.ListSessions, pb.ListSessionsRequest(**fields))
    assert answer.fields == list(fields)


def test_sessions_beyond_the_limit_are_refused_with_a_delay(open_session):
    for _ in range(8):
        open_session([5])
    answer = refused(open_session, [5])
    assert answer.reason == "OVERLOADED"
    assert answer.info.metadata["resource"] == "sessions"
    assert answer.retry
