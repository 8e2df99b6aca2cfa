import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer_service.text import offsets, truncation
from tokenizer_service.text.encoding import EncodeOptions, Text, Truncation

TEXT = "Grüße, 東京 🙂!"


@given(st.text(max_size=30), st.data())
def test_offsets_in_every_unit_cut_the_same_piece_out_of_the_text(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    (in_bytes,) = offsets.convert([(start, end)], text, "bytes")
    (in_utf16,) = offsets.convert([(start, end)], text, "utf16")
    units = text.encode("utf-16-le")
    assert text.encode()[slice(*in_bytes)] == text[start:end].encode()
    assert units[2 * in_utf16[0] : 2 * in_utf16[1]] == text[start:end].encode("utf-16-le")


@pytest.mark.parametrize(
    ("unit", "cut"),
    [
        ("bytes", lambda a, b: TEXT.encode()[a:b].decode(errors="ignore")),
        ("code_points", lambda a, b: TEXT[a:b]),
        ("utf16", lambda a, b: TEXT.encode("utf-16-le")[2 * a : 2 * b].decode("utf-16-le")),
    ],
)
def test_offsets_of_an_encoding_point_at_its_tokens(load, unit, cut):
    (row,) = load("byte_level").encode([Text(TEXT)], EncodeOptions(offset_unit=unit))
    assert cut(*row.spans[0]) == "Gr"[: row.spans[0][1]]
    assert [cut(*span) for span in row.spans][-1] == "!"
    assert row.spans[-1][1] == {"bytes": 21, "code_points": 12, "utf16": 13}[unit]


def test_offsets_of_a_pair_count_in_each_text(load):
    options = EncodeOptions(offset_unit="bytes", token_type_ids=True)
    (row,) = load("byte_level_template").encode([Text("é one", "ü two")], options)
    ends = [
        max(e for (_, e), kind in zip(row.spans, row.token_type_ids, strict=True) if kind == t)
        for t in (0, 1)
    ]
    assert ends == [6, 6]
    assert row.spans[0] == (0, 0)


@pytest.mark.parametrize(
    ("sequence_ids", "max_length", "side", "kept"),
    [
        ([0, 0, 0, 0], 2, "right", [0, 1]),
        ([0, 0, 0, 0], 2, "left", [2, 3]),
        ([None, 0, 0, 0, None], 4, "right", [0, 1, 2, 4]),
        ([None, 0, 0, 0, None], 2, "left", [0, 4]),
        ([None, 0, 0, 0, 0, None, 1, None], 6, "right", [0, 1, 2, 5, 6, 7]),
        ([0, 1, 1, 1, 1], 3, "left", [0, 3, 4]),
        ([0, 0, 0, 0, 1, 1, 1], 5, "right", [0, 1, 2, 4, 5]),
        ([0, 0, 0, 1, 1, 1], 3, "right", [0, 3, 4]),
    ],
)
def test_truncation_removes_text_and_keeps_template_tokens(sequence_ids, max_length, side, kept):
    assert truncation.kept_positions(sequence_ids, max_length=max_length, side=side) == kept


def test_every_detail_is_truncated_with_the_ids(load):
    options = EncodeOptions(
        truncation=Truncation(5, "left"),
        offset_unit="bytes",
        special_tokens_mask=True,
        word_ids=True,
        tokens=True,
        token_bytes=True,
        token_type_ids=True,
    )
    (row,) = load("byte_level_template").encode([Text("Once upon a time there was")], options)
    assert row.num_truncated > 0
    assert row.special_tokens_mask == [1, 0, 0, 0, 1]
    assert row.token_bytes[-2] == b"s" or b"was".endswith(row.token_bytes[-2])
    assert {
        len(detail)
        for detail in (
            row.ids,
            row.spans,
            row.word_ids,
            row.tokens,
            row.token_bytes,
            row.token_type_ids,
        )
    } == {5}


def test_a_row_does_not_depend_on_the_others(tokenizer):
    texts = [Text("one"), Text("two, three and four", "five"), Text(""), Text(TEXT)]
    options = EncodeOptions(offset_unit="utf16", word_ids=True)
    together = tokenizer.encode(texts, options)
    assert together == [tokenizer.encode([text], options)[0] for text in texts]


def test_word_ids_are_minus_one_for_template_tokens(load):
    (row,) = load("byte_level_template").encode([Text("one")], EncodeOptions(word_ids=True))
    assert row.word_ids[0] == row.word_ids[-1] == -1
    assert row.word_ids[1] == 0
