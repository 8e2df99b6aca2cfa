"""The vocabulary that a checkpoint came with."""

import json

import pytest

from model_service.front.vocabulary.base import count_ids, read_base_vocabulary
from vocabulary import tokenizer_id_of


def test_ids_of_pieces_and_added_tokens_are_counted():
    bpe = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 4}]}
    assert count_ids(bpe) == 5


def test_ids_of_a_unigram_model_are_counted():
    assert count_ids({"model": {"vocab": [["a", -1.0], ["b", -2.0], ["c", -3.0]]}}) == 3


@pytest.mark.parametrize("broken", [{}, {"model": {}}, {"model": {"vocab": {}}}])
def test_a_file_without_a_vocabulary_is_refused(broken):
    with pytest.raises(ValueError, match="no vocabulary"):
        count_ids(broken)


def test_a_folder_without_a_tokenizer_has_no_base_vocabulary(tmp_path):
    assert read_base_vocabulary("tiny", tmp_path) is None


def test_the_base_vocabulary_is_revision_0(tmp_path):
    content = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    reference = read_base_vocabulary("org/tiny model", tmp_path)
    assert reference is not None
    assert (reference.tokenizer_id, reference.revision, reference.size) == ("org-tiny-model", 0, 2)
    assert len(reference.fingerprint) == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b", "a-b"), ("../x", "x"), ("///", "tokenizer"), ("y" * 99, "y" * 64)],
)
def test_any_name_gives_a_tokenizer_id(name, expected):
    assert tokenizer_id_of(name) == expected
