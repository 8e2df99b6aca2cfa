from typing import Any

import pytest
from transformers import LlamaTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from checkpoints import gguf_tokenizer
from checkpoints.gguf_tokenizer import UnknownTokenizerError

CONTROL, NORMAL = 3, 1
SPECIAL = ["<unk>", "<s>", "</s>"]


def metadata(pre: str | None, **changes: Any) -> dict[str, Any]:
    """Describes a byte-level tokenizer whose merges join "12", "ab" and "abc"."""
    tokens = [*SPECIAL, *bytes_to_unicode().values(), "12", "ab", "abc"]
    described = {
        "general.architecture": "llama",
        "llama.context_length": 128,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3),
        "tokenizer.ggml.merges": ["1 2", "a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }
    if pre is not None:
        described["tokenizer.ggml.pre"] = pre
    return described | changes


@pytest.mark.parametrize(("pre", "pieces"), [("gpt-2", ["12"]), ("smollm", ["1", "2"])])
def test_digits_are_cut_as_the_original_cuts_them(pre, pieces):
    assert gguf_tokenizer.build(metadata(pre)).tokenize("12") == pieces


@pytest.mark.parametrize(("pre", "pieces"), [("gpt-2", ["ab", "c"]), ("llama-bpe", ["abc"])])
def test_a_whole_piece_that_is_a_token_needs_no_merges_in_llama_3(pre, pieces):
    assert gguf_tokenizer.build(metadata(pre)).tokenize("abc") == pieces


@pytest.mark.parametrize(("pre", "length"), [("gpt-2", 3), ("qwen2", 2)])
def test_qwen_normalizes_to_composed_characters(pre, length):
    decomposed = "e\u0301"  # three bytes of UTF-8; composed, two
    assert len(gguf_tokenizer.build(metadata(pre)).tokenize(decomposed)) == length


@pytest.mark.parametrize("pre", ["some-model-of-tomorrow", "default", None])
def test_an_unknown_cut_is_refused_rather_than_guessed(pre):
    with pytest.raises(UnknownTokenizerError, match="cuts text is not known"):
        gguf_tokenizer.build(metadata(pre))


SENTENCEPIECE = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a"]


def sentencepiece(architecture: str, **changes: Any) -> dict[str, Any]:
    """Describes a SentencePiece tokenizer that joins "▁" and "a"."""
    described = metadata(None) | {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": SENTENCEPIECE,
        "tokenizer.ggml.token_type": [CONTROL] * 3 + [NORMAL] * (len(SENTENCEPIECE) - 3),
        "tokenizer.ggml.scores": [0.0] * len(SENTENCEPIECE),
    }
    del described["tokenizer.ggml.merges"]
    return described | changes


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
@pytest.mark.parametrize(("prefix", "pieces"), [(None, ["▁a"]), (True, ["▁a"]), (False, ["a"])])
def test_a_space_is_put_before_a_text_unless_the_file_says_no(architecture, prefix, pieces):
    flag = {} if prefix is None else {"tokenizer.ggml.add_space_prefix": prefix}
    tokenizer = gguf_tokenizer.build(sentencepiece(architecture, **flag))
    assert tokenizer.tokenize("a") == pieces
    for text in ("a", " a", "  a b ", "</s>a") if prefix is False else ("a", "b a"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
    if architecture == "llama" and prefix is not None:
        reference = LlamaTokenizer(
            vocab={piece: index for index, piece in enumerate(SENTENCEPIECE)},
            merges=[("▁", "a")],
            add_prefix_space=prefix,
        )
        for text in ("a", " a", "  a b ", "b</s> a"):
            assert tokenizer.tokenize(text) == reference.tokenize(text)


def test_gemma_has_no_space_before_a_text_whatever_the_file_says():
    flag = {"tokenizer.ggml.add_space_prefix": False}
    for described in (sentencepiece("gemma"), sentencepiece("gemma", **flag)):
        assert gguf_tokenizer.build(described).tokenize("a") == ["a"]


def test_an_unknown_kind_of_tokenizer_is_refused():
    with pytest.raises(UnknownTokenizerError, match="is not known"):
        gguf_tokenizer.build(metadata("default", **{"tokenizer.ggml.model": "rwkv"}))


def test_special_tokens_context_and_template_come_along():
    tokenizer = gguf_tokenizer.build(metadata("gpt-2"))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert (tokenizer.unk_token, tokenizer.pad_token) == ("<unk>", None)
    assert tokenizer.model_max_length == 128
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert tokenizer("a</s>").input_ids[-1] == 2


@pytest.mark.parametrize(("add", "first"), [(True, [1]), (False, [])])
def test_a_start_token_is_added_as_the_file_says(add, first):
    tokenizer = gguf_tokenizer.build(metadata("gpt-2", **{"tokenizer.ggml.add_bos_token": add}))
    plain = tokenizer.backend_tokenizer.encode("ab", add_special_tokens=False).ids
    assert tokenizer.backend_tokenizer.encode("ab").ids == first + plain
