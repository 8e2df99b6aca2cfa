import numpy as np
import pytest

from tokenizer_service.text import padding

# The batch this project began with: seven and five GPT-2 tokens, three new ones later.
# GPT-2 has no padding token, so its end-of-text id is used.
SEVEN = [14261, 555, 79, 29373, 1936, 11241, 6152]
FIVE = [79, 29373, 1115, 11241, 220]
END_OF_TEXT = 50256


def left(rows, length):
    return padding.pad(rows, length, side="left", pad_token_id=END_OF_TEXT)


def right(rows, length):
    return padding.pad(rows, length, side="right", pad_token_id=END_OF_TEXT)


def test_left_padding_puts_the_newest_token_of_every_row_into_the_last_column():
    padded = left([SEVEN, FIVE], 7)
    assert padded.input_ids.tolist() == [SEVEN, [END_OF_TEXT, END_OF_TEXT, *FIVE]]
    assert padded.attention_mask.tolist() == [[1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    assert padded.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6], [1, 1, 0, 1, 2, 3, 4]]
    assert padded.lengths == (7, 5)


def test_right_padding_keeps_every_row_in_its_place():
    padded = right([SEVEN, FIVE], 7)
    assert padded.input_ids.tolist() == [SEVEN, [*FIVE, END_OF_TEXT, END_OF_TEXT]]
    assert padded.attention_mask.tolist() == [[1] * 7, [1, 1, 1, 1, 1, 0, 0]]
    assert padded.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 1, 1]]


@pytest.mark.parametrize(
    ("side", "mask", "positions"),
    [
        (
            "left",
            [[1] * 10, [0, 0, *[1] * 8]],
            [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1, 0, 1, 2, 3, 4, 5, 6, 7]],
        ),
        (
            "right",
            [[1] * 10, [1, 1, 1, 1, 1, 0, 0, 1, 1, 1]],
            [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 1, 1, 5, 6, 7]],
        ),
    ],
)
def test_positions_go_on_over_prompt_and_continuation(side, mask, positions):
    prompt = padding.pad([SEVEN, FIVE], 7, side=side, pad_token_id=END_OF_TEXT)
    continued = np.concatenate([prompt.attention_mask, np.ones((2, 3), np.int64)], axis=1)
    assert continued.tolist() == mask
    assert padding.position_ids(continued).tolist() == positions


def test_the_mask_does_not_depend_on_ids():
    padded = left([[END_OF_TEXT, 5], [END_OF_TEXT]], 2)
    assert padded.attention_mask.tolist() == [[1, 1], [0, 1]]


def test_tensors_are_int64():
    padded = left([SEVEN], 8)
    assert {padded.input_ids.dtype, padded.attention_mask.dtype, padded.position_ids.dtype} == {
        np.dtype("int64")
    }


@pytest.mark.parametrize(
    ("max_length", "multiple", "length"),
    [(None, 1, 7), (None, 4, 8), (None, 7, 7), (10, 1, 10), (10, 8, 16)],
)
def test_the_length_is_rounded_up_to_a_multiple(max_length, multiple, length):
    assert (
        padding.padded_length([7, 5], max_length=max_length, pad_to_multiple_of=multiple) == length
    )


def test_a_batch_of_empty_rows_has_no_columns():
    padded = left([[], []], padding.padded_length([0, 0], max_length=None, pad_to_multiple_of=8))
    assert padded.input_ids.shape == (2, 0)
