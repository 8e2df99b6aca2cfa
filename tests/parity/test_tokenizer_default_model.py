"""The default model's tokenizer, ours and that of transformers, on real text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import checkpoints
from tokenizer_service.text import loading, tokenizer_files
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.incremental import DecodeOptions

pytestmark = [pytest.mark.default_model, pytest.mark.timeout(600)]

ALL_TEXT = DecodeOptions(skip_special_tokens=False)
PARSED = EncodeOptions(parse_special_tokens=True)


class Pair:
    """The same tokenizer twice. Short to print, which a failing example does."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs


@pytest.fixture(scope="module")
def pair():
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="tokenizer").folder
    ours = loading.load(tokenizer_files.read(folder), "default")
    return Pair(ours, AutoTokenizer.from_pretrained(folder))


@given(text=st.text(max_size=80))
@settings(max_examples=300)
def test_any_text_is_encoded_and_decoded_alike(pair, text):
    ours, theirs = pair.ours, pair.theirs
    (row,) = ours.encode([Text(text)], PARSED)
    assert list(row.ids) == theirs(text)["input_ids"]
    # Not always the text: this vocabulary lacks a few bytes of rare characters.
    assert ours.decode(row.ids, ALL_TEXT) == theirs.decode(row.ids)


@given(ids=st.lists(st.integers(0, 49151), max_size=60))
@settings(max_examples=300)
def test_any_ids_are_decoded_alike(pair, ids):
    ours, theirs = pair.ours, pair.theirs
    for skip in (False, True):
        assert ours.decode(ids, DecodeOptions(skip)) == theirs.decode(ids, skip_special_tokens=skip)


def test_both_know_the_same_special_tokens(pair):
    ours, theirs = pair.ours, pair.theirs
    assert ours.size == len(theirs)
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.roles == {
        role: getattr(theirs, f"{role}_token_id")
        for role in ("bos", "eos", "pad", "unk")
        if getattr(theirs, f"{role}_token_id") is not None
    }
