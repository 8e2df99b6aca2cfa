"""`ScoreSelection` in every call that takes one, against the full rows of the same call."""

import grpc
import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import scores_pb2, tensor_pb2, tokens_pb2

from tests.integration.model_process import ragged, refusal

PROMPTS = [[5, 6, 7, 8], [40, 41, 42]]
CONFIG = {
    "max_new_tokens": 4,
    "eos_token_ids": {},
    "do_sample": True,
    "seed": 3,
    "temperature": 0.7,
    "top_k": 40,
    "presence_penalty": 1.5,
}
LIST, ALL, LAST = (
    scores_pb2.SCORE_POSITIONS_LIST,
    scores_pb2.SCORE_POSITIONS_ALL,
    scores_pb2.SCORE_POSITIONS_LAST,
)


def by_generate(service, selection):
    request = model_pb.GenerateRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=selection
    )
    return [list(s.scores) for s in service.model.Generate(request).sequences]


def by_prompt(service, selection):
    request = model_pb.GenerateRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, prompt_scores=selection
    )
    return [list(s.prompt_scores) for s in service.model.Generate(request).sequences]


def by_stream(service, selection):
    request = model_pb.GenerateRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=selection
    )
    rows = [[] for _ in PROMPTS]
    for event in service.model.GenerateStream(model_pb.GenerateStreamRequest(request=request)):
        for delta in event.deltas.deltas:
            rows[delta.prompt_index] += delta.scores
    return rows


def by_score(service, selection):
    request = model_pb.ScoreRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=selection
    )
    return [list(s.scores) for s in service.model.Score(request).sequences]


def by_compute_logits(service, selection):
    request = model_pb.ComputeLogitsRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=selection
    )
    return [list(row.scores) for row in service.model.ComputeLogits(request).rows]


def by_open(service, selection):
    request = session_pb.OpenSessionRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=selection
    )
    opened = service.sessions.OpenSession(request)
    service.sessions.CloseSession(session_pb.CloseSessionRequest(session_id=opened.session_id))
    return [list(row.scores) for row in opened.scores]


def by_step(service, selection, sampling=True):
    request = session_pb.OpenSessionRequest(prompt=ragged(*PROMPTS), generation_config=CONFIG)
    name = service.sessions.OpenSession(request).session_id
    step = session_pb.StepRequest(
        session_id=name,
        rows=[session_pb.RowStep(ids=[9, 10, 11])] * len(PROMPTS),
        scores=selection,
        sampling=session_pb.StepSampling() if sampling else None,
    )
    rows = service.sessions.Step(step).rows
    service.sessions.CloseSession(session_pb.CloseSessionRequest(session_id=name))
    return [list(row.scores) for row in rows]


CALLS = [by_generate, by_prompt, by_stream, by_score, by_compute_logits, by_open, by_step]
GIVEN = [by_compute_logits, by_open, by_step]  # calls whose positions can be chosen


def full_row(row: scores_pb2.ScoreRow) -> np.ndarray:
    assert row.tensor.dtype == tensor_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(row.tensor.data, "<f4").astype(float)


def logsumexp(row: np.ndarray) -> float:
    return float(np.log(np.exp(row - row.max()).sum()) + row.max())


@pytest.fixture(params=CALLS, ids=lambda call: call.__name__)
def call(request):
    return request.param


@pytest.fixture
def whole(call, tiny_model):
    """Raw and processed rows by position, which the others are compared with."""
    rows = call(tiny_model, scores_pb2.ScoreSelection(logits=True, scores=True, full=True))
    assert rows
    assert all(rows)
    return [{p.position: (full_row(p.logits), full_row(p.scores), p) for p in row} for row in rows]


def pairs(call, service, whole, **selection):
    got = call(service, scores_pb2.ScoreSelection(**selection))
    for row, expected in zip(got, whole, strict=True):
        assert [p.position for p in row] == list(expected)
        for position in row:
            yield position, *expected[position.position]


def test_ids_and_their_ranks_are_those_of_the_full_rows(call, tiny_model, whole):
    for position, raw, processed, _ in pairs(
        call, tiny_model, whole, logits=True, scores=True, top_k=5, rank=True
    ):
        order = sorted(range(len(raw)), key=lambda i: (-raw[i], i))
        assert [t.token_id for t in position.tokens] == order[:5]
        for token in position.tokens:
            assert token.logit == pytest.approx(raw[token.token_id])
            assert token.score == pytest.approx(processed[token.token_id])
        assert not position.HasField("logits")
        if position.HasField("token_id"):
            assert position.rank == order.index(position.token_id) + 1


def test_scores_alone_bring_no_logits(call, tiny_model, whole):
    for position, _, processed, _ in pairs(call, tiny_model, whole, scores=True, top_k=3):
        order = sorted(range(len(processed)), key=lambda i: (-processed[i], i))
        assert [t.token_id for t in position.tokens] == order[:3]
        assert not any(token.HasField("logit") for token in position.tokens)
        assert not position.HasField("logits")
        assert position.HasField("logits_logprob") == (call is by_score)
        assert not position.HasField("rank")


def test_listed_ids_and_statistics_are_those_of_the_full_rows(call, tiny_model, whole):
    for position, raw, processed, _ in pairs(
        call,
        tiny_model,
        whole,
        logits=True,
        scores=True,
        token_ids={"ids": [300, 7]},
        entropy=True,
        logsumexp=True,
    ):
        assert [t.token_id for t in position.tokens] == [300, 7]
        assert position.tokens[0].logit == pytest.approx(raw[300])
        assert position.logits_logsumexp == pytest.approx(logsumexp(raw), rel=1e-5)
        assert position.scores_logsumexp == pytest.approx(logsumexp(processed), rel=1e-5)
        probabilities = np.exp(raw - logsumexp(raw))
        entropy = -(probabilities * np.log(probabilities)).sum()
        assert position.entropy == pytest.approx(entropy, rel=1e-4)
        if position.HasField("token_id"):
            expected = raw[position.token_id] - logsumexp(raw)
            assert position.logits_logprob == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16"])
def test_half_rows_are_the_rounded_full_ones(call, tiny_model, whole, dtype):
    number = tensor_pb2.DataType.Value(f"DATA_TYPE_{dtype}")
    relative = 2**-10 if dtype == "FLOAT16" else 2**-7
    for position, raw, _, _ in pairs(call, tiny_model, whole, logits=True, full=True, dtype=number):
        assert position.logits.tensor.dtype == number
        data = position.logits.tensor.data
        if dtype == "FLOAT16":
            half = np.frombuffer(data, "<f2").astype(float)
        else:
            half = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(half, raw, rtol=relative, atol=1e-6)


def test_the_trace_ends_with_the_score_where_a_token_is_known(call, tiny_model, whole):
    names = ["presence_penalty", "temperature", "top_k"]
    for position, _, processed, _ in pairs(call, tiny_model, whole, processor_trace=True):
        traced = [entry.processor for entry in position.processor_trace]
        assert traced == (names if position.HasField("token_id") else [])
        if traced:
            final = position.processor_trace[-1].score
            assert final == pytest.approx(processed[position.token_id])
    known = [p.HasField("token_id") for row in whole for _, _, p in row.values()]
    assert all(known) == (call not in (by_compute_logits, by_open))


@pytest.mark.parametrize("call", GIVEN, ids=lambda call: call.__name__)
def test_positions_can_be_chosen_where_tokens_are_given(tiny_model, call):
    wanted = {"logits": True, "top_k": 1}
    everything = call(tiny_model, scores_pb2.ScoreSelection(**wanted, positions=ALL))
    last = call(tiny_model, scores_pb2.ScoreSelection(**wanted, positions=LAST))
    some = call(
        tiny_model, scores_pb2.ScoreSelection(**wanted, positions=LIST, position_list=[2, 0])
    )
    given = 3 if call is by_step else None
    for row, newest, chosen, prompt in zip(everything, last, some, PROMPTS, strict=True):
        first = len(prompt) + 1 if given else 1
        count = given or len(prompt)
        assert [p.position for p in row] == list(range(first, first + count))
        assert [p.position for p in newest] == [first + count - 1]
        assert [p.position for p in chosen] == [first, first + 2]
        for got, expected in zip([*newest, *chosen], [row[-1], row[0], row[2]], strict=True):
            assert got.tokens[0].token_id == expected.tokens[0].token_id
            assert got.tokens[0].logit == pytest.approx(expected.tokens[0].logit, rel=1e-5)


def test_the_scores_of_a_continuation_are_those_of_generate(tiny_model):
    wanted = scores_pb2.ScoreSelection(scores=True, full=True, rank=True)
    request = model_pb.GenerateRequest(
        prompt=ragged(*PROMPTS), generation_config=CONFIG, scores=wanted
    )
    generated = tiny_model.model.Generate(request).sequences
    continuations = [tokens_pb2.TokenSequence(ids=s.token_ids) for s in generated]
    scored = tiny_model.model.Score(
        model_pb.ScoreRequest(
            prompt=ragged(*PROMPTS),
            continuations=tokens_pb2.TokenBatch(sequences=continuations),
            generation_config=CONFIG,
            scores=wanted,
        )
    )
    for ours, theirs in zip(scored.sequences, generated, strict=True):
        assert [p.token_id for p in ours.scores] == list(theirs.token_ids)
        for got, expected in zip(ours.scores, theirs.scores, strict=True):
            assert got.rank == expected.rank
            np.testing.assert_allclose(
                full_row(got.scores), full_row(expected.scores), rtol=1e-4, atol=1e-4
            )


def test_without_a_configuration_no_processor_is_applied(tiny_model):
    wanted = scores_pb2.ScoreSelection(logits=True, scores=True, full=True)
    scored = tiny_model.model.Score(model_pb.ScoreRequest(prompt=ragged(*PROMPTS), scores=wanted))
    computed = tiny_model.model.ComputeLogits(
        model_pb.ComputeLogitsRequest(prompt=ragged(*PROMPTS), scores=wanted)
    )
    for row in [*scored.sequences, *computed.rows]:
        for position in row.scores:
            assert position.logits == position.scores


def test_a_distribution_does_not_depend_on_the_length_of_a_neighbor(tiny_model):
    config = CONFIG | {"forced_eos_token_ids": {"ids": [11]}}
    wanted = scores_pb2.ScoreSelection(scores=True, top_k=2)
    for prompts in ([PROMPTS[1]], [PROMPTS[1], [9] * 4], [PROMPTS[1], [9] * 5]):
        request = model_pb.ComputeLogitsRequest(
            prompt=ragged(*prompts), generation_config=config, scores=wanted
        )
        first, *_ = tiny_model.model.ComputeLogits(request).rows
        assert first.scores[0].tokens[0].score != 0.0, "forced ids have the score 0"


@pytest.mark.parametrize(
    ("call", "selection", "field"),
    [
        (by_score, {"logits": True, "positions": LAST}, "scores.positions"),
        (by_score, {"logits": True, "positions": LIST, "position_list": [0]}, "scores.positions"),
        (by_generate, {"logits": True, "positions": ALL}, "scores.positions"),
        (
            by_prompt,
            {"logits": True, "positions": LIST, "position_list": [2]},
            "prompt_scores.position_list",
        ),
        (by_open, {"logsumexp": True}, "scores.logsumexp"),
        (
            by_stream,
            {"logits": True, "top_k": 2, "dtype": tensor_pb2.DATA_TYPE_FLOAT16},
            "scores.dtype",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_model, call, selection, field):
    with pytest.raises(grpc.RpcError) as caught:
        call(tiny_model, scores_pb2.ScoreSelection(**selection))
    assert field in refusal(caught.value).fields
