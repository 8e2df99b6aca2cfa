"""Answers to steps that are larger than one message, in chunks of a stream."""

import grpc
import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_info_service_pb2, model_service_pb2, scores_pb2

from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.integration.model_process import model_process, ragged, refusal

MESSAGE_BYTES = 2**20  # of the service that tests share
ROWS_BYTES = MESSAGE_BYTES // 2  # most bytes of rows in a message, see `ResponseLimits`
NEW_TOKENS = 240
WORD = [(7 * index) % VOCABULARY_SIZE for index in range(NEW_TOKENS + 4)]
EVERYTHING = scores_pb2.ScoreSelection(
    logits=True, full=True, positions=scores_pb2.SCORE_POSITIONS_ALL
)


OPENING = pb.OpenSessionRequest(prompt=ragged([5], [6, 7], [8], [9]), max_length=CONTEXT_LENGTH)


@pytest.fixture
def session(tiny_model):
    opened = tiny_model.sessions.OpenSession(OPENING)
    yield opened.session_id
    tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=opened.session_id))


@pytest.fixture(scope="module")
def roomy_model(tiny_checkpoint, tmp_path_factory):
    """The same model, which sends larger messages."""
    folder = tmp_path_factory.mktemp("roomy")
    with model_process(tiny_checkpoint, folder, "--dtype", "fp32") as service:
        yield service


def step(session_id, selection=EVERYTHING, tokens=NEW_TOKENS, **fields) -> pb.StepRequest:
    rows = [pb.RowStep(ids=WORD[row:][:tokens]) for row in range(4)]
    return pb.StepRequest(session_id=session_id, rows=rows, scores=selection, **fields)


def streamed(
    service, *steps: pb.StepRequest, accept_chunks=True, **accepts: bool
) -> list[pb.StepStreamResponse]:
    requests = [pb.StepStreamRequest(step=s, accept_chunks=accept_chunks, **accepts) for s in steps]
    return list(service.sessions.StepStream(iter(requests)))


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return refusal(caught.value)


def read_back(messages: list[pb.StepStreamResponse]) -> list[list[bytes]]:
    """Puts one answer together: the bytes of each row of the session, by position."""
    answer, *chunks = messages
    tensors: dict[int, bytes] = {}
    for message in chunks:
        assert not message.HasField("step")
        for chunk in message.chunks or [message.chunk]:
            data = tensors.setdefault(chunk.tensor_id, b"")
            assert chunk.offset == len(data)
            tensors[chunk.tensor_id] = data + chunk.data
    return [
        [s.logits.tensor.data or tensors[s.logits.tensor_id] for s in row.scores]
        for row in answer.step.rows
    ]


def test_a_step_too_large_for_one_message_is_read_in_chunks_equal_to_those_of_step_to_the_bit(
    tiny_model, roomy_model, session
):
    too_large = refused(tiny_model.sessions.Step, step(session))
    assert (too_large.code, too_large.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RESPONSE_TOO_LARGE",
    )
    assert "StepStream with accept_chunks" in too_large.message
    messages = streamed(tiny_model, step(session))
    assert sum(message.ByteSize() for message in messages) > MESSAGE_BYTES
    opened = roomy_model.sessions.OpenSession(OPENING)
    whole = roomy_model.sessions.Step(step(opened.session_id))
    expected = [[scores.logits.tensor.data for scores in row.scores] for row in whole.rows]
    assert [len(row) for row in expected] == [NEW_TOKENS] * 4
    assert read_back(messages) == expected
    assert [row.position for row in messages[0].step.rows] == [241, 242, 241, 241]


def test_no_message_of_an_answer_has_more_rows_than_fit(tiny_model, session):
    answer, *chunks = streamed(tiny_model, step(session))
    inline = [s.logits.tensor for row in answer.step.rows for s in row.scores]
    assert ROWS_BYTES - 4 * VOCABULARY_SIZE < sum(len(t.data) for t in inline) <= ROWS_BYTES
    assert all(len(message.chunk.data) <= ROWS_BYTES for message in chunks)
    assert (
        tiny_model.info.GetCapabilities(
            model_info_service_pb2.GetCapabilitiesRequest()
        ).limits.max_chunk_bytes
        == ROWS_BYTES
    )


def test_rows_share_messages_where_the_client_takes_that(tiny_model, session):
    alone = streamed(tiny_model, step(session, look_ahead=True))
    shared = streamed(tiny_model, step(session), accept_packed_chunks=True)
    assert read_back(shared) == read_back(alone)
    rows = sum(message.ByteSize() for message in alone[1:])
    assert len(alone) > rows // ROWS_BYTES + 100
    assert len(shared) <= 2 + rows // ROWS_BYTES
    assert all(message.ByteSize() <= ROWS_BYTES for message in shared[1:])


def test_a_small_step_is_one_message(tiny_model, session):
    (answer,) = streamed(tiny_model, step(session, tokens=3))
    assert [len(row.scores) for row in answer.step.rows] == [3] * 4
    assert all(s.logits.HasField("tensor") for row in answer.step.rows for s in row.scores)


def test_steps_follow_each_other_in_one_stream_and_their_tensors_keep_apart(tiny_model, session):
    ahead, again = step(session, look_ahead=True), step(session)
    messages = streamed(tiny_model, ahead, again)
    starts = [index for index, message in enumerate(messages) if message.HasField("step")]
    assert len(starts) == 2
    first, second = messages[: starts[1]], messages[starts[1] :]
    assert read_back(first) == read_back(second)
    ids = [{m.chunk.tensor_id for m in answer[1:]} for answer in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(("dtype", "size"), [("FLOAT16", 2), ("BFLOAT16", 2)])
def test_a_row_that_follows_says_its_type(tiny_model, session, dtype, size):
    selection = scores_pb2.ScoreSelection(
        logits=True,
        scores=True,
        full=True,
        dtype=f"DATA_TYPE_{dtype}",
        positions=scores_pb2.SCORE_POSITIONS_ALL,
    )
    answer, *chunks = streamed(tiny_model, step(session, selection))
    followed = [
        row
        for result in answer.step.rows
        for scores in result.scores
        for row in (scores.logits, scores.scores)
        if row.tensor_id
    ]
    assert len(followed) == len(chunks) > 0
    assert {row.dtype for row in followed} == {selection.dtype}
    assert {message.chunk.total_bytes for message in chunks} == {size * VOCABULARY_SIZE}


def test_a_client_that_takes_no_chunks_is_refused_as_by_step(tiny_model, session):
    answer = refused(streamed, tiny_model, step(session), accept_chunks=False)
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert answer.info.metadata["limitBytes"] == str(MESSAGE_BYTES)
    (whole,) = streamed(tiny_model, step(session, tokens=180), accept_chunks=False)
    assert whole.ByteSize() > ROWS_BYTES
    assert all(s.logits.HasField("tensor") for row in whole.step.rows for s in row.scores)


def test_an_answer_that_is_kept_is_no_larger_in_chunks(tiny_model, session):
    answer = refused(streamed, tiny_model, step(session, step_id="a"))
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert "no step_id" in answer.message
    named = step(session, tokens=180, step_id="a")
    first = streamed(tiny_model, named)
    again = streamed(tiny_model, named)
    assert len(first) > 1
    assert [a[0].step.replayed for a in (first, again)] == [False, True]
    assert read_back(first) == read_back(again)


def test_what_is_kept_until_it_is_sent_is_bounded(tiny_model):
    opened = tiny_model.sessions.OpenSession(
        pb.OpenSessionRequest(
            prompt=ragged(*[[5]] * 8), scores=scores_pb2.ScoreSelection(), max_length=CONTEXT_LENGTH
        )
    )
    rows = [pb.RowStep(ids=WORD)] * 8
    request = pb.StepRequest(session_id=opened.session_id, rows=rows, scores=EVERYTHING)
    answer = refused(streamed, tiny_model, request)
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert answer.info.metadata["limitBytes"] == str(2 * MESSAGE_BYTES)
    assert "step fewer tokens" in answer.message
    get = pb.GetSessionRequest(session_id=opened.session_id)
    assert [row.position for row in tiny_model.sessions.GetSession(get).rows] == [1] * 8
    tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=opened.session_id))


def test_what_is_beside_the_rows_has_to_fit_one_message(tiny_model, session):
    selection = scores_pb2.ScoreSelection(
        logits=True, top_k=80, positions=scores_pb2.SCORE_POSITIONS_ALL
    )
    answer = refused(streamed, tiny_model, step(session, selection))
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert answer.info.metadata["limitBytes"] == str(MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("method", "request_message", "way_out"),
    [
        (
            "sessions.OpenSession",
            pb.OpenSessionRequest(prompt=ragged(*[WORD] * 4), scores=EVERYTHING),
            "give the others by StepStream",
        ),
        (
            "model.ComputeLogits",
            model_service_pb2.ComputeLogitsRequest(prompt=ragged(*[WORD] * 4), scores=EVERYTHING),
            "send fewer prompts in a call",
        ),
        (
            "model.Score",
            model_service_pb2.ScoreRequest(
                prompt=ragged(*[WORD] * 4),
                scores=scores_pb2.ScoreSelection(logits=True, full=True),
            ),
            "send fewer prompts in a call",
        ),
        (
            "model.Generate",
            model_service_pb2.GenerateRequest(
                prompt=ragged(*[[5]] * 4),
                generation_config={"max_new_tokens": 240},
                scores=scores_pb2.ScoreSelection(logits=True, full=True),
            ),
            "use GenerateStream",
        ),
    ],
)
def test_an_answer_in_one_message_that_would_not_fit_is_refused_with_the_way_out(
    tiny_model, method, request_message, way_out
):
    service, name = method.split(".")
    answer = refused(getattr(getattr(tiny_model, service), name), request_message)
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert int(answer.info.metadata["responseBytes"]) > MESSAGE_BYTES
    assert way_out in answer.message
    assert not answer.retry


def test_the_way_out_of_a_large_score_leads_there(tiny_model):
    """What `Score` cannot answer in one message a session's stream can."""
    opened = tiny_model.sessions.OpenSession(
        pb.OpenSessionRequest(
            prompt=ragged(*[[5]] * 4), scores=scores_pb2.ScoreSelection(), max_length=CONTEXT_LENGTH
        )
    )
    messages = streamed(tiny_model, step(opened.session_id))
    rows = read_back(messages)
    assert [len(row) for row in rows] == [NEW_TOKENS] * 4
    assert np.isfinite(np.frombuffer(b"".join(data for row in rows for data in row), "<f4")).all()
    tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=opened.session_id))
