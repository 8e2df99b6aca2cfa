"""Ragged and padded prompts to ragged rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep.v1 import tensor_pb2, tokens_pb2

from rpc.errors import ContextLengthExceeded, InvalidField
from wire.prompts import Bounds, read_prompts
from wire.violations import Violations

DTYPES = {
    "int64": tensor_pb2.DATA_TYPE_INT64,
    "int32": tensor_pb2.DATA_TYPE_INT32,
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
    "bool": tensor_pb2.DATA_TYPE_BOOL,
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
}


BOUNDS = Bounds(max_rows=2000, context_length=100)


def tensor(values, dtype: str = "int64") -> tensor_pb2.Tensor:
    array = np.array(values, dtype=dtype)
    return tensor_pb2.Tensor(dtype=DTYPES[dtype], shape=array.shape, data=array.tobytes())


def padded(ids, mask, positions=None, ids_dtype="int64", mask_dtype="int64"):
    batch = tokens_pb2.PaddedBatch(
        input_ids=tensor(ids, ids_dtype), attention_mask=tensor(mask, mask_dtype)
    )
    if positions is not None:
        batch.position_ids.CopyFrom(tensor(positions))
    return tokens_pb2.PromptBatch(padded_batch=batch)


def ragged(*rows):
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    return tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))


def read(batch, **options):
    violations = Violations()
    rows = read_prompts(batch, violations, BOUNDS, **options)
    violations.check()
    return rows


def violations_of(batch) -> list[tuple[str, str]]:
    with pytest.raises(InvalidField) as caught:
        read(batch)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_ragged_rows_are_taken_as_they_are():
    assert read(ragged([1, 2, 3], [4])) == [[1, 2, 3], [4]]


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[0, 0, 7], [1, 2, 3]], [[0, 0, 1], [1, 1, 1]]),
        ([[7, 0, 0], [1, 2, 3]], [[1, 0, 0], [1, 1, 1]]),
        ([[0, 7, 0], [1, 2, 3]], [[0, 1, 0], [1, 1, 1]]),
    ],
    ids=["left", "right", "both sides"],
)
def test_padding_is_dropped_wherever_it_is(ids, mask):
    assert read(padded(ids, mask)) == [[7], [1, 2, 3]]


@pytest.mark.parametrize("batch", [ragged(*[[]] * 2001), padded([[0]] * 2001, [[7]] * 2001)])
def test_more_rows_than_a_call_may_have_are_not_looked_at(batch):
    ((field, description),) = violations_of(batch)
    assert field == "prompt"
    assert description == "has 2001 rows; one call may have 2000"


@pytest.mark.parametrize(
    "batch", [ragged([5], [-1] * 101), padded([[-1] * 101] * 2, [[1] + [0] * 100, [1] * 101])]
)
def test_a_row_beyond_the_context_is_refused_before_its_ids_are_read(batch):
    with pytest.raises(ContextLengthExceeded) as caught:
        read(batch)
    assert caught.value.metadata["row"] == "1"
    assert caught.value.metadata["promptTokens"] == "101"


def test_a_hole_in_the_mask_is_dropped():
    assert read(padded([[1, 9, 2]], [[1, 0, 1]])) == [[1, 2]]


@pytest.mark.parametrize("mask_dtype", ["int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("ids_dtype", ["int64", "int32"])
def test_every_integer_type_of_the_schema_is_read(ids_dtype, mask_dtype):
    batch = padded([[5, 6]], [[0, 1]], ids_dtype=ids_dtype, mask_dtype=mask_dtype)
    assert read(batch) == [[6]]


def test_an_id_at_a_padded_place_may_be_anything():
    assert read(padded([[-1, 2**40, 3]], [[0, 0, 1]])) == [[3]]


@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4)
)
def test_a_padded_batch_equals_its_ragged_form(mask):
    ids = np.arange(6 * len(mask)).reshape(len(mask), 6)
    expected = [row[np.array(kept)].tolist() for row, kept in zip(ids, mask, strict=True)]
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    assert read(padded(ids, mask, positions)) == expected


def test_positions_at_padded_places_are_ignored():
    assert read(padded([[9, 9, 5, 6]], [[0, 0, 1, 1]], [[77, -4, 0, 1]])) == [[5, 6]]


def test_positions_that_contradict_the_mask_name_the_row():
    batch = padded([[1, 2], [3, 4]], [[1, 1], [1, 1]], [[0, 1], [1, 2]])
    ((field, description),) = violations_of(batch)
    assert field == "prompt.padded_batch.position_ids"
    assert "row 1" in description


def test_positions_of_another_shape_are_refused():
    batch = padded([[1, 2]], [[1, 1]], [[0, 1, 2]])
    assert violations_of(batch)[0][0] == "prompt.padded_batch.position_ids"


def test_a_row_without_any_token_names_the_row():
    ((field, description),) = violations_of(padded([[1], [2]], [[1], [0]]))
    assert field == "prompt.padded_batch.attention_mask"
    assert "row 1" in description


@pytest.mark.parametrize("value", [2, -1])
def test_a_mask_with_other_values_than_0_and_1_names_the_row(value):
    ((field, description),) = violations_of(padded([[1], [2]], [[1], [value]]))
    assert field == "prompt.padded_batch.attention_mask"
    assert "row 1" in description


def test_a_mask_of_another_shape_is_refused():
    ((field, description),) = violations_of(padded([[1, 2]], [[1], [1]]))
    assert field == "prompt.padded_batch.attention_mask"
    assert "[2, 1]" in description
    assert "[1, 2]" in description


def test_a_mask_of_floats_is_refused():
    batch = padded([[1]], [[1]], mask_dtype="float32")
    assert violations_of(batch)[0][0] == "prompt.padded_batch.attention_mask.dtype"


def test_a_tensor_with_too_few_bytes_is_refused():
    batch = padded([[1, 2]], [[1, 1]])
    batch.padded_batch.input_ids.data = b"\0" * 15
    ((field, description),) = violations_of(batch)
    assert field == "prompt.padded_batch.input_ids.data"
    assert "15 bytes" in description


@pytest.mark.parametrize(
    "shape", [[4], [1, 2, 2], [-1, -4], [2**62, 0], [0, 4]], ids=lambda s: "x".join(map(str, s))
)
def test_a_shape_that_is_no_matrix_is_refused(shape):
    batch = padded([[1, 2, 3, 4]], [[1, 1, 1, 1]])
    del batch.padded_batch.input_ids.shape[:]
    batch.padded_batch.input_ids.shape.extend(shape)
    assert "prompt.padded_batch.input_ids" in violations_of(batch)[0][0]


def test_a_padded_batch_without_tensors_is_refused():
    batch = tokens_pb2.PromptBatch(padded_batch=tokens_pb2.PaddedBatch())
    assert [field for field, _ in violations_of(batch)] == [
        "prompt.padded_batch.input_ids.dtype",
        "prompt.padded_batch.attention_mask.dtype",
    ]


def test_an_unset_batch_is_refused():
    assert violations_of(tokens_pb2.PromptBatch())[0][0] == "prompt"


def test_a_batch_without_rows_is_refused():
    assert violations_of(ragged())[0][0] == "prompt.token_batch.sequences"


def test_an_empty_row_is_named():
    ((field, _),) = violations_of(ragged([1], []))
    assert field == "prompt.token_batch.sequences[1]"


def test_empty_rows_can_be_allowed():
    assert read(ragged([1], []), allow_empty_rows=True) == [[1], []]


def test_thousands_of_wrong_rows_make_a_short_answer():
    assert len(violations_of(ragged(*[[]] * 5000))) < 20
