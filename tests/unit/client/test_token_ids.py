"""Ids are whole numbers, wherever a caller gives them."""

import numpy as np
import pytest
import torch

from lockstep_client import Batch, NewToken, Padded, ScoreSelection
from lockstep_client._requests import model, session, tokenizer, vocabulary
from lockstep_client._values import batch as batches
from lockstep_client._values import tensors

NO_IDS = [1.0, 1.5, True, "1", None, np.float32(1), np.bool_(True), torch.tensor(1.0)]
NO_IDS += [torch.tensor(True)]
NO_ROWS = [
    *([2, value] for value in NO_IDS),
    np.array([1.0, 2.0]),
    np.array([1.5], dtype=np.float16),
    np.array([True, False]),
    np.array(["1", "2"]),
    torch.tensor([1.0, 2.0]),
    torch.tensor([1.5], requires_grad=True),
    torch.tensor([1.5], dtype=torch.bfloat16),
    torch.tensor([True, False]),
]
ROWS = [
    [1, 2],
    (1, 2),
    range(1, 3),
    [np.int64(1), np.uint8(2)],
    [torch.tensor(1), torch.tensor(2, dtype=torch.int32)],
    np.array([1, 2], dtype=">i4"),
    np.array([1, 2], dtype=np.uint16),
    torch.tensor([1, 2]),
    torch.tensor([1, 2], dtype=torch.uint8),
]
MASK = np.ones((1, 2), np.int64)


def rectangle(input_ids):
    return Batch([], padded=Padded(input_ids, MASK, MASK, "left", None))


def first_row(prompts):
    return tensors.from_message(batches.prompt_message(prompts).padded_batch.input_ids)[0].tolist()


# Every place that takes a row of ids: what it makes of one.
TAKES_ROW = {
    "prompts": lambda row: model.generate([row], {}).prompt.token_batch.sequences[0].ids,
    "a batch": lambda row: batches.prompt_message(Batch([row])).token_batch.sequences[0].ids,
    "a mapping": lambda row: first_row({"input_ids": [row], "attention_mask": MASK}),
    "a rectangle": lambda row: first_row(rectangle([row])),
    "extended": lambda row: Batch([[]]).extended([row]).token_ids[0],
    "sessions": lambda row: session.open_session([row], {}).prompt.token_batch.sequences[0].ids,
    "steps": lambda row: session.step("s", [row], [0], {}).rows[0].ids,
    "continuations": lambda row: model.score([[1]], [row], {}).continuations.sequences[0].ids,
    "logits": lambda row: model.compute_logits([row], {}).prompt.token_batch.sequences[0].ids,
    "decode": lambda row: tokenizer.decode(row, {}).batch.token_batch.sequences[0].ids,
    "decode rows": lambda row: tokenizer.decode([row], {}).batch.token_batch.sequences[0].ids,
    "decode pieces": lambda row: tokenizer.decode_piece(row).ids,
    "pad": lambda row: tokenizer.pad([row], {}).token_batch.sequences[0].ids,
    "convert": lambda row: tokenizer.convert_tokens((), row).ids,
    "selection": lambda row: ScoreSelection(logits=True, token_ids=row).to_message().token_ids.ids,
    **{
        name: lambda row, name=name: configured(name, row)
        for name in (
            *("stop_token_ids", "eos_token_id", "forced_eos_token_id", "forced_prefix"),
            *("allowed_token_ids", "suppress_tokens", "begin_suppress_tokens", "negative_prompt"),
        )
    },
    "stop_sequences": lambda row: configured("stop_sequences", [row])[0].ids,
    "bad_words_ids": lambda row: configured("bad_words_ids", [row])[0].ids,
    "sequence_bias": lambda row: configured("sequence_bias", [(row, 1.0)])[0].ids,
}
# Every place that takes one id.
TAKES_ID = {
    "steps": lambda value: session.step("s", [value], [0], {}).rows[0].ids[0],
    "eos_token_id": lambda value: configured("eos_token_id", value)[0],
    "forced_bos_token_id": lambda value: configured("forced_bos_token_id", value),
    "logit_bias": lambda value: next(iter(configured("logit_bias", {value: 1.0}))),
    "pad_token_id": lambda value: (
        tokenizer.encode("a", {"padding": True, "pad_token_id": value}).options.padding.pad_token_id
    ),
    "start_id": lambda value: tokenizer.get_vocabulary(value).start_id,
    "copy_token_id": lambda value: NewToken("a", copy_token_id=value).to_message().copy_token_id,
    "roles": lambda value: (
        vocabulary.set_special_tokens({"pad": value}, {}).special_tokens[0].token_id
    ),
}
MAY_BE_NONE = ("eos_token_id", "forced_bos_token_id", "pad_token_id", "copy_token_id")


def configured(name, value):
    config = model.generate([[1]], {name: value}).generation_config
    field = getattr(config, {"eos_token_id": "eos_token_ids"}.get(name, name), None)
    if name == "forced_eos_token_id":
        field = config.forced_eos_token_ids
    return getattr(field, "ids", field)


@pytest.mark.parametrize("place", TAKES_ROW)
def test_rows_of_whole_numbers_of_any_kind_are_taken(place):
    for row in ROWS:
        assert list(TAKES_ROW[place](row)) == [1, 2]


@pytest.mark.parametrize("place", TAKES_ROW)
def test_rows_with_anything_else_are_refused(place):
    for row in NO_ROWS:
        with pytest.raises(TypeError, match="Token ids are whole numbers, not"):
            TAKES_ROW[place](row)


@pytest.mark.parametrize("place", TAKES_ID)
def test_a_whole_number_of_any_kind_is_an_id(place):
    for value in (1, np.int32(1), torch.tensor(1)):
        assert TAKES_ID[place](value) == 1


@pytest.mark.parametrize("place", TAKES_ID)
def test_anything_else_is_no_id(place):
    for value in NO_IDS:
        if value is None and place in MAY_BE_NONE:
            continue
        with pytest.raises(TypeError, match="Token ids are whole numbers, not"):
            TAKES_ID[place](value)


def test_an_empty_row_may_have_any_type():
    assert batches.prompt_message([np.array([]), []]).token_batch.sequences[0].ids == []


@pytest.mark.parametrize("array", [np.ones((1, 2)), torch.ones(1, 2), MASK.astype(bool)])
def test_an_array_of_anything_else_is_no_rectangle_of_ids(array):
    for prompts in (rectangle(array), {"input_ids": array, "attention_mask": MASK}, array):
        with pytest.raises(TypeError, match="Token ids are whole numbers, not an array of"):
            batches.prompt_message(prompts)
