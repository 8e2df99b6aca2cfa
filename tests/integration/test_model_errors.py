"""Bad input through real gRPC: a status with details, and nothing else."""

import itertools
import math

import grpc
import numpy as np
import pytest
from lockstep.v1 import (
    error_reason_pb2,
    generation_pb2,
    model_info_service_pb2,
    model_service_pb2,
    scores_pb2,
    tensor_pb2,
    tokens_pb2,
    vocabulary_pb2,
)
from lockstep.v1 import (
    logits_session_service_pb2 as sessions_pb,
)

from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.integration.model_process import ragged, refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def tensor(array: np.ndarray) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_INT64, shape=array.shape, data=array.astype("<i8").tobytes()
    )


def padded(ids: np.ndarray, mask: np.ndarray, positions=None) -> tokens_pb2.PromptBatch:
    batch = tokens_pb2.PaddedBatch(input_ids=tensor(ids), attention_mask=tensor(mask))
    if positions is not None:
        batch.position_ids.CopyFrom(tensor(positions))
    return tokens_pb2.PromptBatch(padded_batch=batch)


def request(prompt=None, config=None, **fields) -> model_service_pb2.GenerateRequest:
    return model_service_pb2.GenerateRequest(
        prompt=prompt or ragged([5, 6, 7]), generation_config=config or {}, **fields
    )


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return refusal(caught.value)


FULL = scores_pb2.ScoreSelection(logits=True, full=True)
ONES = np.ones((2, 3), dtype=int)

# What is sent, the reason and the first field that is named.
BAD_REQUESTS = {
    "no prompt": (model_service_pb2.GenerateRequest(), "INVALID_FIELD", "prompt"),
    "an empty prompt": (request(ragged([])), "INVALID_FIELD", "prompt.token_batch.sequences[0]"),
    "an id at the vocabulary's size": (
        request(ragged([5, VOCABULARY_SIZE])),
        "TOKEN_ID_OUT_OF_RANGE",
        "prompt",
    ),
    "a negative id": (request(ragged([-1])), "TOKEN_ID_OUT_OF_RANGE", "prompt"),
    "a mask of the wrong shape": (
        request(padded(ONES, np.ones((2, 2), dtype=int))),
        "INVALID_FIELD",
        "prompt.padded_batch.attention_mask",
    ),
    "a mask with a 2": (
        request(padded(ONES, 2 * ONES)),
        "INVALID_FIELD",
        "prompt.padded_batch.attention_mask",
    ),
    "a row without tokens": (
        request(padded(ONES, 0 * ONES)),
        "INVALID_FIELD",
        "prompt.padded_batch.attention_mask",
    ),
    "positions that contradict the mask": (
        request(padded(ONES, ONES, 7 * ONES)),
        "INVALID_FIELD",
        "prompt.padded_batch.position_ids",
    ),
    "a prompt beyond the context": (
        request(ragged([5] * CONTEXT_LENGTH)),
        "CONTEXT_LENGTH_EXCEEDED",
        None,
    ),
    "more new tokens than fit": (
        request(config={"max_new_tokens": CONTEXT_LENGTH}),
        "CONTEXT_LENGTH_EXCEEDED",
        None,
    ),
    "a NaN temperature": (
        request(config={"do_sample": True, "temperature": math.nan}),
        "INVALID_FIELD",
        "generation_config.temperature",
    ),
    "a temperature of 0": (
        request(config={"do_sample": True, "temperature": 0.0}),
        "INVALID_FIELD",
        "generation_config.temperature",
    ),
    "top_k of -1": (
        request(config={"do_sample": True, "top_k": -1}),
        "INVALID_FIELD",
        "generation_config.top_k",
    ),
    "sampling without do_sample": (
        request(config={"top_p": 0.5}),
        "INVALID_FIELD",
        "generation_config.top_p",
    ),
    "a stop id outside of the vocabulary": (
        request(config={"stop_token_ids": [VOCABULARY_SIZE]}),
        "TOKEN_ID_OUT_OF_RANGE",
        "generation_config.stop_token_ids",
    ),
    "a selected id outside of the vocabulary": (
        request(
            scores=scores_pb2.ScoreSelection(logits=True, token_ids={"ids": [VOCABULARY_SIZE]})
        ),
        "TOKEN_ID_OUT_OF_RANGE",
        "scores.token_ids",
    ),
    "too many sequences": (
        request(config={"do_sample": True, "num_return_sequences": 65}),
        "INVALID_FIELD",
        "generation_config.num_return_sequences",
    ),
    "a negative revision": (
        request(vocabulary=vocabulary_pb2.VocabularyRef(revision=-1)),
        "INVALID_FIELD",
        "vocabulary.revision",
    ),
}


CALLS = {
    "Generate": lambda service, message: service.model.Generate(message),
    "GenerateStream": lambda service, message: list(
        service.model.GenerateStream(model_service_pb2.GenerateStreamRequest(request=message))
    ),
    "ValidateRequest": lambda service, message: service.info.ValidateRequest(
        model_info_service_pb2.ValidateRequestRequest(generate_request=message)
    ),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
@pytest.mark.parametrize("method", CALLS)
def test_bad_input_is_refused_with_its_reason_and_field(tiny_model, method, case):
    message, reason, field = BAD_REQUESTS[case]
    answer = refused(CALLS[method], tiny_model, message)
    assert answer.code is INVALID
    assert answer.reason == reason
    if field is not None:
        assert answer.info.metadata["field"] == field
    if reason == "INVALID_FIELD":
        assert answer.fields[0] == field
    assert not answer.retry


def test_everything_that_is_wrong_is_named_at_once(tiny_model):
    config = {"do_sample": True, "temperature": -1, "top_k": -1}
    answer = refused(tiny_model.model.Generate, request(config=config, priority=5000))
    assert answer.fields == [
        "generation_config.temperature",
        "generation_config.top_k",
        "priority",
    ]


def test_another_vocabulary_is_a_mismatch(tiny_model):
    reference = vocabulary_pb2.VocabularyRef(tokenizer_id="tiny", fingerprint="f" * 64)
    answer = refused(tiny_model.model.Generate, request(vocabulary=reference))
    assert answer.code is grpc.StatusCode.FAILED_PRECONDITION
    assert answer.reason == "VOCABULARY_MISMATCH"
    assert answer.info.metadata["requestFingerprint"] == "f" * 64
    assert len(answer.info.metadata["serverFingerprint"]) == 64


def test_scores_that_overflow_end_their_sequence_and_are_no_fault_of_the_model(tiny_model):
    """Where temperatures make them infinite there is no distribution to draw from."""
    cooler = {"name": "temperature", "arguments_json": '{"temperature": 1e-10}'}
    for config in [{}, {"seed_mode": 2}, {"seed_mode": 2, "num_beams": 2}]:
        config = {"do_sample": True, "processors": [cooler] * 8, **config}
        answer = tiny_model.model.Generate(request(config=config))
        (sequence,) = answer.sequences
        assert sequence.finish_reason == generation_pb2.FINISH_REASON_ERROR, config
        assert sequence.error.reason in (
            error_reason_pb2.ERROR_REASON_NON_FINITE_SCORES,
            error_reason_pb2.ERROR_REASON_NO_TOKEN_LEFT,  # negative ones become -inf
        ), config
    tiny_model.model.Generate(request())


def test_values_at_the_edge_of_a_float_are_refused_by_name_and_never_blame_the_model(tiny_model):
    floats = [
        descriptor.name
        for descriptor in generation_pb2.GenerationConfig.DESCRIPTOR.fields
        if descriptor.type == descriptor.TYPE_FLOAT
    ]
    values = [1e-45, 1e-38, 1e-6, -1e-45, 3.4e38, -3.4e38, math.nan, math.inf, -math.inf]
    for name, value in itertools.product(floats, values):
        config = {"do_sample": True, "lenient": True, "max_new_tokens": 2, name: value}
        try:
            answer = tiny_model.model.Generate(request(config=config))
        except grpc.RpcError as error:
            refused_fields = refusal(error).fields
        else:
            refused_fields = []
            assert not answer.sequences[0].HasField("error"), (name, value)
        assert refused_fields in ([], [f"generation_config.{name}"]), (name, value)


@pytest.mark.parametrize("method", ["Generate", "OpenSession"])
def test_stop_strings_need_the_bytes_of_a_tokenizer_service(tiny_model, method):
    message = request(config={"stop_strings": ["x"]})
    call = tiny_model.model.Generate
    if method == "OpenSession":
        call = tiny_model.sessions.OpenSession
        message = sessions_pb.OpenSessionRequest(
            prompt=message.prompt, generation_config=message.generation_config
        )
    answer = refused(call, message)
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert answer.reason == "NOT_IMPLEMENTED"
    assert answer.info.metadata["feature"] == "generation_config.stop_strings"
    assert "--tokenizer-address" in answer.message


@pytest.mark.parametrize(
    "method",
    [
        "Step",
        "Truncate",
        "Fork",
        "SelectRows",
        "GetSession",
        "CloseSession",
        "TouchSession",
    ],
)
def test_a_session_that_does_not_exist_is_not_found(tiny_model, method):
    message = getattr(sessions_pb, f"{method}Request")(session_id="no-such-session")
    answer = refused(getattr(tiny_model.sessions, method), message)
    assert answer.code is grpc.StatusCode.NOT_FOUND
    assert answer.reason == "SESSION_NOT_FOUND"
    assert answer.info.metadata["sessionId"] == "no-such-session"


def test_a_message_of_5_mb_is_too_large(tiny_model):
    answer = refused(tiny_model.model.Generate, request(cache_salt="x" * 5_000_000))
    assert answer.code is EXHAUSTED
    assert answer.reason == "MESSAGE_TOO_LARGE"
    assert int(answer.info.metadata["messageBytes"]) > 5_000_000
    assert not answer.retry


def test_random_bytes_are_no_message(tiny_model):
    call = tiny_model.channel.unary_unary("/lockstep.v1.ModelService/Generate")
    answer = refused(call, bytes(range(255, 0, -1)))
    assert answer.code is INVALID
    assert answer.reason == "MALFORMED_MESSAGE"


def test_an_unknown_method_is_unimplemented_with_details(tiny_model):
    call = tiny_model.channel.unary_unary("/lockstep.v1.ModelService/NoSuchMethod")
    assert refused(call, b"").reason == "NOT_IMPLEMENTED"


def test_a_response_that_cannot_be_sent_is_refused_before_anything_runs(tiny_model):
    rows = ragged(*[[5]] * 32)
    answer = refused(
        tiny_model.model.Generate, request(rows, {"max_new_tokens": 200}, scores=FULL), timeout=5
    )
    assert answer.code is EXHAUSTED
    assert answer.reason == "RESPONSE_TOO_LARGE"
    assert answer.info.metadata["limitBytes"] == str(2**20)
    assert int(answer.info.metadata["responseBytes"]) > 32 * 200 * VOCABULARY_SIZE * 4
    assert not answer.retry


def test_a_response_too_large_for_one_message_can_be_streamed(tiny_model):
    message = request(ragged(*[[5]] * 4), {"max_new_tokens": 240, "eos_token_ids": {}}, scores=FULL)
    assert refused(tiny_model.model.Generate, message).reason == "RESPONSE_TOO_LARGE"
    stream = tiny_model.model.GenerateStream(
        model_service_pb2.GenerateStreamRequest(request=message)
    )
    received = sum(
        len(scores.logits.tensor.data)
        for event in stream
        for delta in event.deltas.deltas
        for scores in delta.scores
    )
    assert received == 4 * 240 * VOCABULARY_SIZE * 4


def test_no_text_of_a_failure_leaves_the_server(tiny_model):
    answer = refused(tiny_model.model.Generate, request(ragged([5, 31337])))
    assert "Traceback" not in answer.message
    assert ".py" not in answer.message
