"""Sessions that generate, and generations that are kept, against the real engine."""

import time

import grpc
import numpy as np
import pytest
from lockstep.v1 import generation_pb2, model_admin_service_pb2, model_info_service_pb2
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2 as model_pb

from tests.checkpoint_factory import CONTEXT_LENGTH
from tests.integration.model_process import ragged
from tests.integration.test_model_sessions import PROMPTS, TOP, refused, state, step, top, when_free

PLAIN = {"eos_token_ids": {}}
SAMPLED = {"do_sample": True, "temperature": 1.3, "top_k": 40, "seed": 11, "eos_token_ids": {}}


@pytest.fixture
def sessions(tiny_model):
    """Leaves no session behind."""
    yield tiny_model.sessions
    for summary in tiny_model.sessions.ListSessions(pb.ListSessionsRequest()).sessions:
        close = pb.CloseSessionRequest(session_id=summary.session_id)
        when_free(tiny_model.sessions.CloseSession, close)


def opened(sessions, *rows, config=None, **fields):
    return sessions.OpenSession(
        pb.OpenSessionRequest(
            prompt=ragged(*(rows or PROMPTS)), generation_config=config or PLAIN, **fields
        )
    )


def generate(service, config=None, **fields) -> model_pb.GenerateResponse:
    return service.model.Generate(model_pb.GenerateRequest(generation_config=config, **fields))


def stream(service, config=None, **fields):
    request = model_pb.GenerateRequest(generation_config=config, **fields)
    return service.model.GenerateStream(model_pb.GenerateStreamRequest(request=request), timeout=60)


def token_ids(response: model_pb.GenerateResponse) -> list[list[int]]:
    return [list(sequence.token_ids) for sequence in response.sequences]


@pytest.mark.parametrize("config", [PLAIN, SAMPLED], ids=["greedy", "sampled"])
def test_a_session_finished_by_generate_gives_the_tokens_of_generate(tiny_model, sessions, config):
    expected = generate(tiny_model, {**config, "max_new_tokens": 12}, prompt=ragged(*PROMPTS))
    session = opened(sessions, *[p[:-1] for p in PROMPTS], config=config, scores=TOP)
    ids = [p[-1:] for p in PROMPTS]
    drawn = [[] for _ in PROMPTS]
    for _ in range(5):
        answer = step(tiny_model, session.session_id, *ids, sampling=pb.StepSampling(append=True))
        ids = [[]] * len(PROMPTS)
        for row, result in zip(drawn, answer.rows, strict=True):
            row.append(result.sampled_token_id)
    rest = generate(tiny_model, {"max_new_tokens": 7}, session_id=session.session_id)
    assert rest.session_id == session.session_id
    whole = [a + b for a, b in zip(drawn, token_ids(rest), strict=True)]
    assert whole == token_ids(expected)
    assert [s.seed for s in rest.sequences] == [row.seed for row in session.rows]
    assert state(tiny_model, session.session_id) == [
        a + b for a, b in zip(PROMPTS, whole, strict=True)
    ]


def test_steps_go_on_after_a_generation(tiny_model, sessions):
    session = opened(sessions, [5, 6])
    (new,) = token_ids(generate(tiny_model, {"max_new_tokens": 4}, session_id=session.session_id))
    answer = step(tiny_model, session.session_id, [9], scores=TOP)
    assert answer.rows[0].position == 7
    fresh = opened(sessions, [5, 6, *new, 9], scores=TOP)
    assert top(answer.rows[0]) == fresh.scores[0].scores[0].tokens[0].token_id


def test_a_session_streams_what_it_generates(tiny_model, sessions):
    session = opened(sessions, [5, 6], config=SAMPLED)
    twin = opened(sessions, [5, 6], config=SAMPLED)
    expected = token_ids(generate(tiny_model, {"max_new_tokens": 6}, session_id=twin.session_id))
    events = list(stream(tiny_model, {"max_new_tokens": 6}, session_id=session.session_id))
    assert list(events[0].started.seeds) == [row.seed for row in session.rows]
    got = [i for e in events for delta in e.deltas.deltas for i in delta.token_ids]
    assert [got] == expected
    assert events[-1].completed.session_id == session.session_id


def test_usage_says_what_was_in_the_cache(tiny_model, sessions):
    session = opened(sessions, [5] * 30)
    usage = generate(tiny_model, {"max_new_tokens": 3}, session_id=session.session_id).usage
    assert (usage.prompt_token_count, usage.cached_prompt_token_count) == (30, 29)
    assert (usage.completion_token_count, usage.step_count) == (3, 3)


def test_fields_left_out_are_as_in_the_session(tiny_model, sessions):
    session = opened(sessions, [5], config=SAMPLED | {"max_new_tokens": 9})
    answer = generate(tiny_model, {"temperature": 0.5}, session_id=session.session_id)
    effective = answer.effective_config
    assert (effective.do_sample, effective.top_k, effective.max_new_tokens) == (True, 40, 9)
    assert effective.temperature == 0.5
    assert not effective.HasField("seed")
    get = pb.GetSessionRequest(session_id=session.session_id)
    assert sessions.GetSession(get).effective_config == session.effective_config


def test_a_field_that_the_pipeline_of_the_session_replaces_is_refused(tiny_model, sessions):
    pipeline = {"do_sample": True, "processors": [{"name": "renormalize_logits"}]}
    session = opened(sessions, [5], config=pipeline)
    config = {"temperature": 0.5, "max_new_tokens": 2}
    answer = refused(generate, tiny_model, config, session_id=session.session_id)
    assert answer.fields == ["generation_config.temperature"]
    lenient = generate(tiny_model, {**config, "lenient": True}, session_id=session.session_id)
    assert len(lenient.sequences[0].token_ids) == 2


def test_a_generation_that_is_given_up_leaves_no_trace(tiny_model, sessions):
    session = opened(sessions, *PROMPTS, config=SAMPLED)
    events = stream(tiny_model, {"max_new_tokens": 200}, session_id=session.session_id)
    for _ in range(4):
        next(events)
    refusal = refused(step, tiny_model, session.session_id, [1], [1], [1])
    assert refusal.reason == "SESSION_BUSY"
    events.cancel()
    get = pb.GetSessionRequest(session_id=session.session_id)
    rows = when_free(sessions.GetSession, get).rows
    assert [list(row.tokens.ids) for row in rows] == PROMPTS
    twin = opened(sessions, *PROMPTS, config=SAMPLED)
    answers = [
        generate(tiny_model, {"max_new_tokens": 5}, session_id=s.session_id)
        for s in (session, twin)
    ]
    assert token_ids(answers[0]) == token_ids(answers[1])


@pytest.mark.parametrize("kept", [False, True], ids=["continued", "kept"])
def test_closing_a_session_ends_what_it_generates_with_what_there_is(tiny_model, sessions, kept):
    if kept:
        fields = {"prompt": ragged([5, 6]), "keep_session": {}}
    else:
        fields = {"session_id": opened(sessions, [5, 6]).session_id}
    events = stream(tiny_model, PLAIN | {"max_new_tokens": 200}, **fields)
    received = [next(events) for _ in range(4)]
    (summary,) = sessions.ListSessions(pb.ListSessionsRequest()).sessions
    closed = sessions.CloseSession(pb.CloseSessionRequest(session_id=summary.session_id))
    received += events
    (finished,) = [event.finished for event in received if event.HasField("finished")]
    assert finished.sequence.finish_reason == generation_pb2.FINISH_REASON_CANCELLED
    deltas = [delta for event in received for delta in event.deltas.deltas]
    assert closed.token_count == 2 + sum(len(delta.token_ids) for delta in deltas)
    assert received[-1].completed.usage.completion_token_count == closed.token_count - 2
    assert received[-1].completed.session_id == ""
    assert not sessions.ListSessions(pb.ListSessionsRequest()).sessions


@pytest.mark.parametrize(
    ("fields", "config", "wrong"),
    [
        ({"prompt": ragged([5])}, {}, ["prompt"]),
        ({"prompt_scores": {"logits": True}}, {}, ["prompt_scores"]),
        ({"keep_session": {}}, {}, ["keep_session"]),
        ({"seeds": [3]}, {}, ["seeds"]),
        ({}, {"seed": 3}, ["generation_config.seed"]),
        ({}, {"do_sample": True, "num_return_sequences": 2}, None),
        ({}, {"temperature": -1.0}, ["generation_config.temperature"]),
        ({"vocabulary": {"revision": -1}}, {}, ["vocabulary.revision"]),
    ],
)
def test_what_contradicts_the_session_is_refused(tiny_model, sessions, fields, config, wrong):
    session = opened(sessions, [5])
    wrong = wrong or ["generation_config.num_return_sequences"]
    answer = refused(generate, tiny_model, config, session_id=session.session_id, **fields)
    assert answer.reason == "INVALID_FIELD"
    assert answer.fields[: len(wrong)] == wrong
    assert state(tiny_model, session.session_id) == [[5]]


def test_new_tokens_must_fit_what_the_session_reserved(tiny_model, sessions):
    session = opened(sessions, [5, 6], max_length=8)
    answer = refused(generate, tiny_model, {"max_new_tokens": 7}, session_id=session.session_id)
    assert answer.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert answer.info.metadata["contextTokens"] == "8"
    (sequence,) = generate(tiny_model, PLAIN, session_id=session.session_id).sequences
    assert len(sequence.token_ids) == 6
    full = refused(generate, tiny_model, PLAIN, session_id=session.session_id)
    assert full.reason == "CONTEXT_LENGTH_EXCEEDED"


def test_a_row_without_tokens_has_nothing_to_go_on_from(tiny_model, sessions):
    session = opened(sessions, [5])
    sessions.Truncate(pb.TruncateRequest(session_id=session.session_id, positions=[0]))
    answer = refused(generate, tiny_model, {}, session_id=session.session_id)
    assert answer.fields == ["session_id"]


def test_an_unknown_session_is_not_found(tiny_model):
    assert refused(generate, tiny_model, {}, session_id="nowhere").reason == "SESSION_NOT_FOUND"


def test_a_kept_generation_goes_on_as_one_that_was_longer(tiny_model, sessions):
    fields = {"prompt": ragged(*PROMPTS)}
    expected = token_ids(generate(tiny_model, SAMPLED | {"max_new_tokens": 9}, **fields))
    first = generate(tiny_model, SAMPLED | {"max_new_tokens": 4}, keep_session={}, **fields)
    assert first.session_id
    rest = generate(tiny_model, {"max_new_tokens": 5}, session_id=first.session_id)
    whole = [a + b for a, b in zip(token_ids(first), token_ids(rest), strict=True)]
    assert whole == expected
    assert state(tiny_model, first.session_id) == [
        a + b for a, b in zip(PROMPTS, whole, strict=True)
    ]


def test_every_sequence_becomes_a_row_of_the_kept_session(tiny_model, sessions):
    answer = generate(
        tiny_model,
        SAMPLED | {"max_new_tokens": 3, "num_return_sequences": 2},
        prompt=ragged([5], [6, 7]),
        keep_session={"ttl": {"seconds": 60}, "max_length": 40},
    )
    get = sessions.GetSession(pb.GetSessionRequest(session_id=answer.session_id))
    prompts = ([5], [5], [6, 7], [6, 7])
    assert [list(row.tokens.ids) for row in get.rows] == [
        p + list(s.token_ids) for p, s in zip(prompts, answer.sequences, strict=True)
    ]
    assert [row.seed for row in get.rows] == [s.seed for s in answer.sequences]
    assert 50 < get.expire_time.seconds - time.time() < 61
    assert get.kv_bytes == opened(sessions, [5], max_length=40).kv_bytes * 4
    assert get.effective_config.num_return_sequences == 1


def test_the_stream_of_a_kept_generation_names_its_session(tiny_model, sessions):
    events = list(stream(tiny_model, {"max_new_tokens": 3}, prompt=ragged([5, 6]), keep_session={}))
    (row,) = state(tiny_model, events[-1].completed.session_id)
    assert row[:2] == [5, 6]
    assert len(row) == 5


def test_a_kept_session_has_the_cache_of_its_tokens(tiny_model, sessions):
    answer = generate(tiny_model, {"max_new_tokens": 3}, prompt=ragged([5, 6]), keep_session={})
    (row,) = state(tiny_model, answer.session_id)
    stepped = step(tiny_model, answer.session_id, [8])
    fresh = opened(sessions, [*row, 8])
    logits = [
        np.frombuffer(scores.logits.tensor.data, "<f4")
        for scores in (stepped.rows[0].scores[0], fresh.scores[0].scores[0])
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)


def test_nothing_is_kept_of_a_generation_that_is_given_up(tiny_model, sessions):
    events = stream(
        tiny_model, PLAIN | {"max_new_tokens": 200}, prompt=ragged([5, 6]), keep_session={}
    )
    next(events)
    assert len(sessions.ListSessions(pb.ListSessionsRequest()).sessions) == 1
    events.cancel()
    deadline = time.monotonic() + 2
    while sessions.ListSessions(pb.ListSessionsRequest()).sessions:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    load = tiny_model.info.GetLoad(model_info_service_pb2.GetLoadRequest())
    while load.kv_used_token_count:
        assert time.monotonic() < deadline
        load = tiny_model.info.GetLoad(model_info_service_pb2.GetLoadRequest())


def test_nothing_is_kept_of_a_generation_with_an_error(tiny_model, sessions):
    config = PLAIN | {
        "max_new_tokens": 2,
        "allowed_token_ids": {"ids": [7, 8]},
        "no_repeat_ngram_size": 1,
    }
    answer = generate(tiny_model, config, prompt=ragged([5], [7]), keep_session={})
    assert answer.sequences[1].HasField("error")
    assert sorted(answer.sequences[0].token_ids) == [7, 8]
    assert answer.session_id == ""
    assert not sessions.ListSessions(pb.ListSessionsRequest()).sessions


@pytest.mark.parametrize(
    ("keep", "wrong"),
    [
        ({"ttl": {"seconds": 0}}, ["keep_session.ttl"]),
        ({"ttl": {"seconds": 4000}}, ["keep_session.ttl"]),
        ({"max_length": 4}, ["keep_session.max_length"]),
        ({"max_length": CONTEXT_LENGTH + 1}, ["keep_session.max_length"]),
        ({"max_length": 4, "ttl": {}}, ["keep_session.ttl", "keep_session.max_length"]),
    ],
)
def test_terms_out_of_range_are_refused(tiny_model, keep, wrong):
    answer = refused(
        generate, tiny_model, {"max_new_tokens": 3}, prompt=ragged([5, 6]), keep_session=keep
    )
    assert answer.fields == wrong


@pytest.mark.parametrize(
    "branches",
    [{"guidance_scale": 1.5}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}],
)
def test_sequences_of_several_rows_are_not_kept(tiny_model, branches):
    config = {"max_new_tokens": 2, **branches}
    answer = refused(generate, tiny_model, config, prompt=ragged([5, 6]), keep_session={})
    assert answer.fields == ["keep_session"]


@pytest.mark.parametrize("branches", [{"guidance_scale": 1.5}, {"num_beams": 2}])
def test_sessions_do_not_go_on_in_several_rows(tiny_model, sessions, branches):
    session = opened(sessions, [5, 6])
    answer = refused(generate, tiny_model, branches, session_id=session.session_id)
    assert answer.fields == [f"generation_config.{next(iter(branches))}"]


def test_a_session_that_has_no_room_is_refused_before_anything_runs(tiny_model, sessions):
    for _ in range(8):
        opened(sessions, [5], max_length=4)
    answer = refused(generate, tiny_model, {}, prompt=ragged([5]), keep_session={})
    assert (answer.reason, answer.info.metadata["resource"]) == ("OVERLOADED", "sessions")
    assert answer.retry


def test_a_dry_run_says_what_a_kept_or_continued_session_reserves(tiny_model, sessions):
    def validate(**fields):
        request = model_pb.GenerateRequest(**fields)
        return tiny_model.info.ValidateRequest(
            model_info_service_pb2.ValidateRequestRequest(generate_request=request)
        )

    config = {"max_new_tokens": 3}
    kept = validate(
        prompt=ragged([5], [6]), generation_config=config, keep_session={"max_length": 30}
    )
    assert kept.kv_token_count == 60
    session = opened(sessions, [5], config=SAMPLED, max_length=20)
    continued = validate(session_id=session.session_id, generation_config=config)
    assert continued.kv_token_count == 20
    assert continued.effective_config.top_k == 40
    assert state(tiny_model, session.session_id) == [[5]]


def test_a_paused_server_continues_and_keeps_nothing_new(tiny_model, sessions):
    session = opened(sessions, [5])
    tiny_model.admin.Drain(model_admin_service_pb2.DrainRequest())
    try:
        for fields in (
            {"session_id": session.session_id},
            {"prompt": ragged([5]), "keep_session": {}},
        ):
            with pytest.raises(grpc.RpcError) as caught:
                generate(tiny_model, {"max_new_tokens": 2}, **fields)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        tiny_model.admin.Resume(model_admin_service_pb2.ResumeRequest())
    assert state(tiny_model, session.session_id) == [[5]]
