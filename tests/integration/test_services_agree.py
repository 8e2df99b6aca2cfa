"""Both services read the same off the wire, and answer the same to what is wrong with it."""

import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from lockstep.v1 import (
    logits_session_service_pb2,
    model_service_pb2,
    tensor_pb2,
    tokenizer_service_pb2,
    tokens_pb2,
    vocabulary_admin_service_pb2,
)
from lockstep.v1.vocabulary_pb2 import VocabularyRef

from tests.integration.model_process import counting_process
from tests.integration.tokenizer_process import failure_of, running_tokenizer

SIZE = 320

FLOAT32, INT64, INT32 = (
    tensor_pb2.DATA_TYPE_FLOAT32,
    tensor_pb2.DATA_TYPE_INT64,
    tensor_pb2.DATA_TYPE_INT32,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint, tmp_path_factory):
    """A tokenizer service with the tokenizer of the tiny model, and as many rows per call."""
    folder = tmp_path_factory.mktemp("tokenizer_service")
    with running_tokenizer(tiny_checkpoint, folder, "--max-items=64") as stubs:
        yield stubs


@pytest.fixture(scope="module")
def model(tiny_checkpoint, tokenizer, tmp_path_factory):
    """A model service that follows it, whose engine counts."""
    folder = tmp_path_factory.mktemp("model_service")
    flags = ["--tokenizer-address", tokenizer.service.address, "--vocabulary-wait-s", "0.2"]
    with counting_process(tiny_checkpoint, folder, *flags) as process:
        yield process


def ragged(*rows):
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    return tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))


def tensor(values, dtype=INT64):
    array = np.array(values, {FLOAT32: "<f4", INT64: "<i8", INT32: "<i4"}[dtype])
    return tensor_pb2.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


def padded(ids, mask, positions=None):
    tensors = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    given = {
        name: value if isinstance(value, tensor_pb2.Tensor) else tensor(value)
        for name, value in tensors.items()
        if value is not None
    }
    return tokens_pb2.PromptBatch(padded_batch=tokens_pb2.PaddedBatch(**given))


def changed(message, **fields):
    copy = tensor_pb2.Tensor()
    copy.CopyFrom(message)
    copy.ClearField("shape") if "shape" in fields else None
    copy.MergeFrom(tensor_pb2.Tensor(**fields))
    return copy


ONE = tensor([[1]])

BATCHES = {
    "none": tokens_pb2.PromptBatch(),
    "ragged without rows": ragged(),
    "ragged with too many rows": ragged(*[[1]] * 65),
    "ragged with a negative id": ragged([1], [2, -1]),
    "ragged with an id beyond the vocabulary": ragged([1, SIZE]),
    "padded without tensors": tokens_pb2.PromptBatch(padded_batch=tokens_pb2.PaddedBatch()),
    "padded without a mask": padded([[1]], None),
    "padded with too many rows": padded([[1]] * 65, [[1]] * 65),
    "padded with ids of another type": padded(tensor([[1]], FLOAT32), [[1]]),
    "padded with a mask of another type": padded([[1]], tensor([[1]], FLOAT32)),
    "padded with an unknown type": padded(changed(ONE, dtype=99), [[1]]),
    "padded with a vector": padded([1], [1]),
    "padded with a negative shape": padded(changed(ONE, shape=[-1, -1]), [[1]]),
    "padded with a shape of nothing": padded(changed(ONE, shape=[0, 1], data=b""), [[1]]),
    "padded with an endless shape": padded(changed(ONE, shape=[2**40, 2**40]), [[1]]),
    "padded with too few bytes": padded(changed(ONE, data=b"\1"), [[1]]),
    "padded with a mask of another shape": padded([[1, 2]], [[1]]),
    "padded with a mask of other numbers": padded([[1], [2]], [[1], [-1]]),
    "padded with positions of another shape": padded([[1]], [[1]], [[0, 1]]),
    "padded with positions of another type": padded([[1]], [[1]], tensor([[0]], FLOAT32)),
    "padded with positions that contradict the mask": padded([[1, 2]], [[0, 1]], [[0, 1]]),
    "padded with many wrong rows": padded([[1]] * 20, [[2]] * 20, [[7]] * 20),
    "padded with an id beyond the vocabulary": padded([[9, 1, SIZE]], [[0, 1, 1]]),
}

REFERENCES = {
    "all of it": {},
    "the revision alone": {"tokenizer_id": "", "fingerprint": "", "size": 0},
    "the name alone": {"fingerprint": "", "size": 0},
    "the fingerprint alone": {"tokenizer_id": "", "size": 0},
    "another name without a fingerprint": {"tokenizer_id": "other", "fingerprint": "", "size": 0},
    "another name with the fingerprint": {"tokenizer_id": "other"},
    "another fingerprint": {"fingerprint": "f" * 64},
    "another fingerprint alone": {"tokenizer_id": "", "fingerprint": "f" * 64, "size": 0},
    "a negative revision": {"revision": -1},
    "another size": {"size": 7},
    "a negative size": {"size": -1},
    "a newer revision": {"revision": 5, "fingerprint": "f" * 64, "size": 0},
    "a newer revision alone": {"revision": 5, "fingerprint": "", "tokenizer_id": ""},
    "a newer revision of another name": {"revision": 5, "tokenizer_id": "other"},
}

PAGES = [
    {"page_size": -1},
    {"page_size": 1001},
    {"page_token": "x"},
    {"page_token": "-1"},
    {"page_token": "\N{SUPERSCRIPT TWO}"},
    {"page_token": "9" * 30},
    {"page_size": -1, "page_token": "x"},
]


def outcome(call, request):
    """What a caller gets to know: nothing where the call succeeds."""
    try:
        call(request)
    except Exception as error:
        status = rpc_status.from_call(error)
        info, wrong = ErrorInfo(), BadRequest()
        for detail in status.details:
            detail.Unpack(info) or detail.Unpack(wrong)
        violations = [(each.field, each.description) for each in wrong.field_violations]
        return error.code(), info, violations
    return None


def decoded(tokenizer, batch, **fields):
    request = tokenizer_service_pb2.DecodeRequest(batch=batch, **fields)
    return outcome(tokenizer.tokenizer.Decode, request)


def computed(model, batch, **fields):
    request = model_service_pb2.ComputeLogitsRequest(prompt=batch, **fields)
    return outcome(model.model.ComputeLogits, request)


def renamed(answer):
    """The answer of `Decode`, whose batch has another name."""
    code, info, violations = answer
    for key, value in info.metadata.items():
        if key == "field" and value.split(".")[0] == "batch":
            info.metadata[key] = value.replace("batch", "prompt", 1)
    return code, info, [(field.replace("batch", "prompt", 1), said) for field, said in violations]


@pytest.mark.parametrize("case", BATCHES)
def test_a_broken_batch_gets_the_same_answer(tokenizer, model, case):
    answer = computed(model, BATCHES[case])
    assert answer is not None
    assert renamed(decoded(tokenizer, BATCHES[case])) == answer


def test_a_row_without_tokens_is_refused_where_it_is_a_prompt_and_in_either_form(tokenizer, model):
    for batch, field in [
        (ragged([1], []), "prompt.token_batch.sequences[1]"),
        (padded([[1], [1]], [[1], [0]]), "prompt.padded_batch.attention_mask"),
    ]:
        assert decoded(tokenizer, batch) is None
        _, _, violations = computed(model, batch)
        assert violations == [(field, "row 1 must have at least one token")]


@pytest.mark.parametrize("case", REFERENCES)
def test_a_reference_means_the_same(tokenizer, model, case):
    reference = VocabularyRef()
    reference.CopyFrom(tokenizer.info().vocabulary)
    for name, value in REFERENCES[case].items():
        setattr(reference, name, value)
    one = decoded(tokenizer, ragged([1]), vocabulary=reference)
    other = computed(model, ragged([1]), vocabulary=reference)
    if one is None or other is None:
        assert one == other
        return
    assert (one[0], one[1].reason, one[2]) == (other[0], other[1].reason, other[2])
    assert one[1].metadata == other[1].metadata


@pytest.mark.parametrize("fields", PAGES, ids=str)
def test_a_page_that_cannot_be_gets_the_same_answer(tokenizer, model, fields):
    revisions = vocabulary_admin_service_pb2.ListRevisionsRequest(**fields)
    sessions = logits_session_service_pb2.ListSessionsRequest(**fields)
    answer = outcome(model.sessions.ListSessions, sessions)
    assert answer is not None
    assert outcome(tokenizer.admin.ListRevisions, revisions) == answer


def test_several_wrong_fields_are_named_at_once_by_the_tokenizer_service_too(tokenizer):
    options = tokenizer_service_pb2.EncodeOptions(offset_unit=99)
    options.truncation.max_length = -1
    options.padding.strategy = 9
    options.padding.pad_to_multiple_of = 0
    items = [tokenizer_service_pb2.TextItem(text="x" * 300_000)]
    request = tokenizer_service_pb2.EncodeRequest(items=items, options=options)
    failure = failure_of(tokenizer.tokenizer.Encode, request)
    assert [each.field for each in failure.bad_request.field_violations] == [
        "items[0].text",
        "options.truncation.max_length",
        "options.offset_unit",
        "options.padding.strategy",
        "options.padding.pad_to_multiple_of",
    ]
