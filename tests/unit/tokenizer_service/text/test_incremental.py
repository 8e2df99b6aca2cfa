import json
import time

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer_factory import KINDS, byte_level_bpe
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.incremental import DecodeOptions, IncrementalDecoder, clean_up
from tokenizer_service.text.loading import load as load_files
from tokenizer_service.text.tokenizer_files import TokenizerFiles
from vocabulary import AddedToken, Change, NewToken

ALL = DecodeOptions(skip_special_tokens=False, clean_up_spaces=False)
PARSED = EncodeOptions(parse_special_tokens=True)
SOME_TEXT = (
    "capital cities",
    "Grüße, it 's 東京 and 🏳️‍🌈 family 👨‍👩‍👧: do n't we 've . Yes !",
    "<|im_start|>one<|im_end|> two</s> three [SEP] four",
    "  leading and   many spaces ' n ' v ' r",
)


def cuts(ids, data):
    places = data.draw(st.lists(st.integers(0, len(ids)), max_size=8)) if data else range(len(ids))
    ends = sorted({*places, len(ids)})
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def streamed(tokenizer, pieces, options):
    decoder = tokenizer.decoder(options)
    texts = [decoder.push(piece) for piece in pieces]
    return [*texts, decoder.finish()]


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data(), skip=st.booleans(), clean=st.booleans())
@settings(max_examples=150)
def test_pieces_concatenate_to_the_decoded_text_of_any_ids(load, kind, data, skip, clean):
    tokenizer = load(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1), max_size=40))
    options = DecodeOptions(skip, clean)
    whole = tokenizer.decode(ids, options)
    assert "".join(streamed(tokenizer, cuts(ids, data), options)) == whole
    assert "".join(streamed(tokenizer, cuts(ids, None), options)) == whole


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("text", SOME_TEXT)
@pytest.mark.parametrize("clean", [False, True])
def test_text_is_decoded_as_the_library_decodes_it(load, kind, text, clean):
    tokenizer = load(kind)
    ids = list(tokenizer.encode([Text(text)], PARSED)[0].ids)
    for skip in (False, True):
        expected = tokenizer.trusting.whole.decode(ids, skip_special_tokens=skip)
        expected = clean_up(expected) if clean else expected
        assert tokenizer.decode(ids, DecodeOptions(skip, clean)) == expected
        assert "".join(streamed(tokenizer, cuts(ids, None), DecodeOptions(skip, clean))) == expected


@given(ids=st.lists(st.integers(3, 399), max_size=40))
def test_broken_bytes_are_replaced_as_the_library_replaces_them(load, ids):
    tokenizer = load("byte_level")
    assert tokenizer.decode(ids, ALL) == tokenizer.trusting.whole.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "unigram"])
def test_no_piece_ends_inside_of_a_character(load, kind):
    tokenizer = load(kind)
    ids = list(
        tokenizer.encode([Text("東京 🏳️‍🌈 é")], EncodeOptions(add_special_tokens=False))[0].ids
    )
    pieces = streamed(tokenizer, cuts(ids, None), ALL)
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces[:-1]  # something was held back on the way


def test_what_is_held_back_is_counted_and_sent_at_the_end(load):
    tokenizer = load("byte_level")
    ids = list(tokenizer.encode([Text("🙂")], PARSED)[0].ids)
    decoder = tokenizer.decoder(ALL)
    assert [decoder.push([token_id]) for token_id in ids[:3]] == ["", "", ""]
    assert decoder.pending_bytes == 3
    assert decoder.finish() == "\ufffd"
    assert decoder.pending_bytes == 0


def test_clean_up_holds_back_no_more_than_a_rule_may_need(load):
    tokenizer = load("byte_level")
    decoder = tokenizer.decoder(DecodeOptions(clean_up_spaces=True))
    ids = [tokenizer.encode([Text(text)], PARSED)[0].ids for text in ("one ", ".", " two")]
    assert [decoder.push(list(row)) for row in ids] == ["one", ".", " two"]


def test_a_sequence_goes_on_across_a_new_revision(load):
    tokenizer = load("byte_level")
    new = NewToken(id=tokenizer.size, token=AddedToken("né à côté"))
    grown = tokenizer.grown(Change(tokens=(new,)))
    decoder = tokenizer.decoder(ALL)
    text = decoder.push(list(tokenizer.encode([Text("🙂")], PARSED)[0].ids[:3]))
    decoder.follow(grown)
    text += decoder.push([new.id])
    assert text == "\ufffdné à côté"


def test_the_time_per_token_does_not_grow_with_the_text(load):
    decoder = load("word_piece").decoder(ALL)

    def seconds(count):
        start = time.perf_counter()
        for _ in range(count):
            decoder.push([100])
        return time.perf_counter() - start

    seconds(100)
    early = min(seconds(200) for _ in range(3))
    seconds(20_000)
    assert min(seconds(200) for _ in range(3)) < 5 * early + 0.005


def test_an_unknown_decoder_is_exact_although_it_does_not_stream():
    members = json.loads(byte_level_bpe().to_str())
    members["decoder"] = {
        "type": "CTC",
        "pad_token": "a",
        "word_delimiter_token": "e",
        "cleanup": False,
    }
    files = TokenizerFiles(json.dumps(members).encode(), {}, {})
    tokenizer = load_files(files, "tiny")
    ids = list(tokenizer.encode([Text("abba feeds a tree")], PARSED)[0].ids)
    decoder = tokenizer.decoder(ALL)
    assert decoder.push(ids) == ""
    assert decoder.finish() == tokenizers.Tokenizer.from_str(json.dumps(members)).decode(ids)


def test_a_decoder_needs_nothing_but_a_vocabulary(load):
    assert IncrementalDecoder(load("byte_level"), ALL).finish() == ""
