import json

import numpy as np
import pytest

from rpc.errors import InvalidField
from tokenizer_service.growth import model_rows
from tokenizer_service.growth.model_rows import ModelRows
from tokenizer_service.growth.token_rules import TokenToAdd
from vocabulary import AddedToken, NewToken


def token(inputs: int, outputs: int = 0, seed: int = 1) -> TokenToAdd:
    def vector(width: int, number: int) -> bytes:
        return np.random.default_rng(number).standard_normal(width).astype("<f4").tobytes()

    return TokenToAdd(
        AddedToken("<x>", special=True),
        initialization="values",
        input_values=vector(inputs, 1),
        output_values=vector(outputs, seed),
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 8}, ModelRows(8, tied=False)),
        ({"n_embd": 8, "tie_word_embeddings": True}, ModelRows(8, tied=True)),
        ({"hidden_size": 8, "word_embed_proj_dim": 4}, ModelRows(4, tied=False)),
        ({"hidden_size": 3, "text_config": {"hidden_size": 8}}, ModelRows(8, tied=False)),
        ({"d_model": 8, "tie_word_embeddings": False}, ModelRows(8, tied=False)),
        ({"vocab_size": 9, "text_config": {"vocab_size": 7}}, ModelRows(count=7)),
        ({"hidden_size": True}, ModelRows()),
        ({"hidden_size": "8", "tie_word_embeddings": 1}, ModelRows()),
        ([], ModelRows()),
    ],
)
def test_width_and_tying_are_read_from_the_configuration(config, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_rows.read(tmp_path) == expected


@pytest.mark.parametrize("text", [None, "{", "\xff"])
def test_without_a_configuration_nothing_is_known_and_nothing_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    rows = model_rows.read(tmp_path)
    assert rows == ModelRows()
    rows.check([token(3, 5)])


@pytest.mark.parametrize(
    ("rows", "new", "field"),
    [
        (ModelRows(8), token(7), "tokens[1].input_values.shape"),
        (ModelRows(8), token(8, 7), "tokens[1].output_values.shape"),
        (ModelRows(8, tied=True), token(8, 8, seed=2), "tokens[1].output_values"),
    ],
)
def test_vectors_that_the_model_cannot_take_are_refused_by_name(rows, new, field):
    with pytest.raises(InvalidField) as caught:
        rows.check([TokenToAdd(AddedToken("<y>")), new])
    assert caught.value.metadata["field"] == field


def test_vectors_that_fit_are_taken():
    ModelRows(8).check([token(8), token(8, 8, seed=2)])
    ModelRows(8, tied=True).check([token(8), token(8, 8)])


@pytest.mark.parametrize(
    ("new", "field"),
    [
        ({"previous_ids": (3, 8)}, "tokens[1].initialization"),
        ({"initialization": "copy", "copy_token_id": 8}, "tokens[1].copy_token_id"),
        ({"initialization": "copy", "copy_token_id": 7}, None),
        ({"previous_ids": (3, 10)}, None),
        ({"initialization": "mean", "previous_ids": (3, 8)}, None),
    ],
)
def test_a_row_is_not_made_from_an_id_that_the_model_has_no_row_for(new, field):
    token = NewToken(11, AddedToken("<x>", special=True), **new)
    ModelRows().check_sources(1, token, 10)
    if field is None:
        ModelRows(count=8).check_sources(1, token, 10)
        return
    with pytest.raises(InvalidField) as caught:
        ModelRows(count=8).check_sources(1, token, 10)
    assert [violation.field for violation in caught.value.violations] == [field]
