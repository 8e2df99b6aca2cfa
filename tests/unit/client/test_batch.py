from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from lockstep_client import Batch, Padded, VocabularyRef
from lockstep_client._values import batch as batches

MASK = np.array([[1, 1, 1], [0, 0, 1]])

PADDED = Padded(
    input_ids=np.array([[1, 2, 3], [0, 0, 4]]),
    attention_mask=np.array([[1, 1, 1], [0, 0, 1]]),
    position_ids=np.array([[0, 1, 2], [1, 1, 0]]),
    padding_side="left",
    pad_token_id=0,
)


def _rows(message):
    return [list(row.ids) for row in message.token_batch.sequences]


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2], [3]],
        ((1, 2), (3,)),
        [np.array([1, 2]), np.array([3], dtype=np.int32)],
        [torch.tensor([1, 2]), torch.tensor([3])],
        Batch([[1, 2], [3]]),
    ],
    ids=["lists", "tuples", "numpy", "torch", "batch"],
)
def test_rows_of_ids_of_any_kind_are_a_ragged_batch(rows):
    assert _rows(batches.prompt_message(rows)) == [[1, 2], [3]]


def test_a_rectangle_without_a_mask_has_no_padding():
    assert _rows(batches.prompt_message(np.array([[1, 2], [3, 4]]))) == [[1, 2], [3, 4]]


def test_an_empty_row_is_sent_and_left_to_the_server_to_refuse():
    assert _rows(batches.prompt_message([[1], []])) == [[1], []]


@pytest.mark.parametrize("rows", [[1, 2, 3], ["1 2"], [[[1]]]], ids=["flat", "text", "nested"])
def test_what_is_no_batch_of_rows_is_refused(rows):
    with pytest.raises(TypeError, match="Rows of token ids"):
        batches.prompt_message(rows)


def test_a_padded_batch_is_sent_with_mask_and_positions():
    batch = Batch([[1, 2, 3], [4]], padded=PADDED)
    received = Padded.from_message(batches.prompt_message(batch).padded_batch)
    for name in ("input_ids", "attention_mask", "position_ids"):
        np.testing.assert_array_equal(getattr(received, name), getattr(PADDED, name))
    assert (received.padding_side, received.pad_token_id) == ("left", 0)


def test_a_pad_token_id_of_zero_is_not_the_same_as_none():
    message = PADDED.to_message()
    assert message.HasField("pad_token_id")
    message.ClearField("pad_token_id")
    assert Padded.from_message(message).pad_token_id is None


def test_what_a_hugging_face_tokenizer_returns_is_a_batch():
    encoding = {"input_ids": torch.tensor([[0, 5]]), "attention_mask": torch.tensor([[0, 1]])}
    message = batches.prompt_message(encoding).padded_batch
    assert not message.HasField("position_ids")
    assert list(message.attention_mask.shape) == [1, 2]


def test_a_mapping_without_a_mask_is_refused():
    with pytest.raises(TypeError, match="attention_mask"):
        batches.prompt_message({"input_ids": [[1]]})


def test_a_ragged_batch_says_how_to_get_a_rectangle():
    with pytest.raises(ValueError, match="padding='longest'"):
        _ = Batch([[1], [2, 3]]).input_ids


def test_torch_tensors_are_copies_that_are_accepted_where_numpy_is():
    padded = PADDED.to_torch()
    assert padded.input_ids.dtype == torch.int64
    padded.input_ids[0, 0] = 9
    assert PADDED.input_ids[0, 0] == 1
    message = batches.prompt_message(Batch([[9, 2, 3], [4]], padded=padded)).padded_batch
    assert Padded.from_message(message).input_ids.tolist() == [[9, 2, 3], [0, 0, 4]]


def test_the_vocabulary_travels_with_the_batch():
    ref = VocabularyRef("tiny", 3, "ab" * 32, 320)
    assert VocabularyRef.from_message(ref.to_message()) == ref
    assert batches.vocabulary_of(Batch([[1]], vocabulary=ref)) is ref
    assert batches.vocabulary_of([[1]]) is None


def test_a_batch_is_a_mapping_of_what_a_model_takes():
    batch = Batch([[1, 2, 3], [4]], padded=PADDED)
    assert isinstance(batch, Mapping)
    assert list(batch) == ["input_ids", "attention_mask", "position_ids"]
    assert batch["input_ids"] is batch.input_ids
    assert {**batch}["attention_mask"] is batch.attention_mask
    assert "token_type_ids" not in batch
    with pytest.raises(KeyError, match="not 'labels'"):
        batch["labels"]


def test_batches_are_equal_where_ids_arrays_and_vocabulary_are():
    batch = Batch([[1, 2, 3], [4]], padded=PADDED)
    assert batch == Batch([[1, 2, 3], [4]], padded=replace(PADDED))
    assert batch != Batch([[1, 2, 3], [4]])
    assert batch != Batch([[1, 2, 3], [4]], padded=replace(PADDED, position_ids=MASK))
    assert batch != Batch([[1, 2, 3], [4]], padded=replace(PADDED, padding_side="right"))


def test_rows_that_are_equally_long_are_a_rectangle_without_padding():
    batch = Batch([[1, 2], [3, 4]])
    assert batch.input_ids.tolist() == [[1, 2], [3, 4]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 1]]
    assert batch.position_ids.tolist() == [[0, 1], [0, 1]]
    assert Batch([]).input_ids.shape == (0, 0)
    assert Batch([[1, 2]], return_tensors="pt")["input_ids"].dtype == torch.int64


def test_prompts_are_given_once():
    given = {"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}
    assert batches.given(None, given) == given
    assert batches.given(None, {"input_ids": [[1, 2], [3]]}) == [[1, 2], [3]]
    for prompts, options in ((None, {}), ([[1]], given), (None, {"attention_mask": [[1]]})):
        with pytest.raises(TypeError, match="Give prompts, or input_ids="):
            batches.given(prompts, options)


def test_arrays_of_a_library_that_is_not_installed_are_refused_before_any_call(monkeypatch):
    monkeypatch.setattr(batches.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"lockstep-client\[torch\]"):
        batches.check_return_tensors("pt")
