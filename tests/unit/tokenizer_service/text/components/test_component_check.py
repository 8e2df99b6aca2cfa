import json
import subprocess

import pytest
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from tests.tokenizer_factory import KINDS
from tokenizer_service.text.components import component_check
from tokenizer_service.text.components.known_patterns import KNOWN_PATTERNS
from tokenizer_service.text.components.pattern_texts import repetitions
from tokenizer_service.text.tokenizer_files import TokenizerFilesError


def split(pattern):
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def normalizers(*members):
    return {"type": "Sequence", "normalizers": list(members)}


@pytest.fixture
def no_process(monkeypatch):
    """Fails where a trial would be started."""

    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(x+x+)+y", "(a|a)*b", "foo(a+)+b", "(東+)+京", r"(\w+\s?)+:"),
        *(r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?:\p{L}+\p{L}+)+!"),
        "(?:ab)+c",  # of second degree only
        pytest.param(r"\d*\d*\d*x", marks=pytest.mark.full),
        *(pytest.param(slow, marks=pytest.mark.full) for slow in (" +▁", "<!--.*?-->", r"\s+$")),
    ],
)
def test_a_pattern_whose_time_grows_faster_than_the_text_is_refused_by_name(pattern):
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split(r"\p{N}"), split(pattern)]}
    with pytest.raises(TokenizerFilesError) as caught:
        component_check.check({"pre_tokenizer": pre_tokenizer})
    assert "pre_tokenizer.pretokenizers[1]" in str(caught.value)
    assert ascii(pattern) in str(caught.value)


@pytest.mark.parametrize("kind", ["normalizer", "decoder"])
def test_a_slow_pattern_is_found_wherever_it_is(kind):
    component = replace({"Regex": "(a+)+$"}, "b")
    with pytest.raises(TokenizerFilesError, match=f"The {kind} of"):
        component_check.check({kind: component})


@pytest.mark.parametrize("pattern", ['"[^"]*"', "[0-9]{1,4}", r"\p{Han}|[^\p{Han}]+"])
def test_another_pattern_is_served(pattern):
    component_check.check({"pre_tokenizer": split(pattern)})


def test_a_pattern_that_cannot_be_read_is_left_to_the_library():
    component_check.check({"pre_tokenizer": split("(a")})


@pytest.mark.parametrize(
    "component",
    [
        normalizers(*[replace({"String": "a"}, "a" * 1000)] * 3),
        normalizers(replace({"String": "a"}, "b" * 10), replace({"String": "b"}, "c" * 10)),
        replace({"Regex": r"\s+"}, "x" * 9000),
    ],
    ids=["bomb", "chain", "regex"],
)
def test_a_normalizer_that_multiplies_is_refused_by_name(component):
    with pytest.raises(TokenizerFilesError, match=r"normalizer of .* makes more than"):
        component_check.check({"normalizer": component})


def test_a_decoder_that_multiplies_is_refused_by_name():
    decoder = {
        "type": "Sequence",
        "decoders": [{"type": "Fuse"}, replace({"String": "a"}, "b" * 5000)],
    }
    with pytest.raises(TokenizerFilesError, match=r"decoder of .* makes more than"):
        component_check.check({"decoder": decoder})


def test_many_replacements_that_do_not_meet_are_served():
    names = [replace({"String": chr(0x1F600 + i)}, f" grinning face {i} ") for i in range(40)]
    component_check.check({"normalizer": normalizers(*names)})


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"type": "WordPiece", "max_input_chars_per_word": 10**9}, "max_input_chars_per_word"),
        ({"type": "Unigram", "vocab": [["a", 0.0], ["b" * 5000, 0.0]]}, "piece of 5000"),
    ],
)
def test_words_and_pieces_that_are_compared_place_by_place_have_a_bound(model, named):
    with pytest.raises(TokenizerFilesError, match=named):
        component_check.check({"model": model})


@pytest.mark.parametrize("damaged", [None, [], "x", {"pattern": 3}, {"normalizers": [None, 1]}])
def test_what_is_no_component_is_left_to_the_library(no_process, damaged):
    component_check.check({kind: damaged for kind in ("model", "normalizer", "decoder")})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_tokenizer_of_known_components_waits_for_no_process(no_process, kind):
    make, _ = KINDS[kind]
    component_check.check(json.loads(make().to_str()))


def test_what_gguf_files_name_is_known(no_process):
    for pattern in GGUF_PRE_TOKENIZER_SPLITS.values():
        component_check.check({"pre_tokenizer": split(pattern)})


@pytest.mark.slow
@pytest.mark.parametrize("pattern", sorted(KNOWN_PATTERNS))
def test_every_known_pattern_passes_the_trial(monkeypatch, pattern):
    monkeypatch.setattr(component_check, "KNOWN_PATTERNS", frozenset())
    component_check.check({"pre_tokenizer": split(pattern)})


@pytest.mark.parametrize("pattern", ["", "(", "[", r"\x{110000}\x{D800}\uDFFF", r"\p{", "a{,}"])
def test_texts_are_made_of_any_pattern(pattern):
    texts = [one.text(100) for one in repetitions(pattern)]
    assert all(len(text) < 300 for text in texts)
    assert "".join(texts).encode()
    assert len(texts) < 2000
