import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tests.tokenizer_factory import byte_level_bpe
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.incremental import DecodeOptions
from tokenizer_service.text.loading import load as load_files
from tokenizer_service.text.token_bytes import (
    DecoderRules,
    TokenType,
    byte_level_alphabet,
    decoder_rules,
)
from tokenizer_service.text.tokenizer_files import TokenizerFiles

TEXT_ALONE = EncodeOptions(add_special_tokens=False, token_bytes=True)


def bytes_of(tokenizer, text):
    return b"".join(tokenizer.encode([Text(text)], TEXT_ALONE)[0].token_bytes)


@given(text=st.text(max_size=40))
def test_byte_level_tokens_concatenate_to_the_bytes_of_the_text(load, text):
    assert bytes_of(load("byte_level"), text) == text.encode()


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\u2581"), min_size=1, max_size=40)
)
def test_byte_fallback_tokens_concatenate_to_the_bytes_of_the_text(load, text):
    # The normalizer puts one space in front.
    assert bytes_of(load("byte_fallback"), text) == b" " + text.encode()


def test_the_alphabet_is_that_of_the_library():
    assert sorted(byte_level_alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_level_alphabet().values()) == list(range(256))


@pytest.mark.parametrize(
    ("kind", "token", "spelled", "token_type"),
    [
        ("byte_level", "Ġthe", b" the", TokenType.NORMAL),
        ("byte_level", "<|im_end|>", b"<|im_end|>", TokenType.SPECIAL),
        ("byte_fallback", "<0xE6>", b"\xe6", TokenType.BYTE),
        ("byte_fallback", "▁Th", b" Th", TokenType.NORMAL),
        ("unigram", "<0x0A>", b"\n", TokenType.BYTE),
        ("word_piece", "##t", b"t", TokenType.NORMAL),
        ("word_piece", "[CLS]", b"[CLS]", TokenType.SPECIAL),
    ],
)
def test_an_entry_stands_for_its_bytes(load, kind, token, spelled, token_type):
    tokenizer = load(kind)
    token_id = tokenizer.id_of(token)
    assert token_id is not None
    assert tokenizer.table.token_bytes[token_id] == spelled
    assert tokenizer.table.types[token_id] is token_type


@pytest.mark.parametrize("spelling", ["<0x0>", "<0xGG>", "<0x+1>", "<0x 1>", "x<0x0A>"])
def test_what_only_looks_like_a_byte_is_text(spelling):
    rules = DecoderRules(byte_fallback=True)
    assert rules.spell(spelling) == (spelling.encode(), TokenType.NORMAL)


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
        {
            "type": "Sequence",
            "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}],
        },
        {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"},
    ],
    ids=["ctc", "strip-each", "regex"],
)
def test_a_decoder_that_is_not_known_makes_no_promise(decoder):
    rules = decoder_rules(decoder)
    assert not rules.concatenates
    assert not rules.joins


def test_an_added_token_outside_of_the_model_stands_for_its_characters():
    library = byte_level_bpe()
    library.add_tokens(["né à côté"])
    tokenizer = load_files(TokenizerFiles(library.to_str().encode(), {}, {}), "tiny")
    assert tokenizer.table.token_bytes[400] == "né à côté".encode()
    assert tokenizer.table.types[400] is TokenType.ADDED
    assert tokenizer.decode([400], DecodeOptions()) == "né à côté"
