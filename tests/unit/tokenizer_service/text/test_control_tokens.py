import dataclasses

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adversarial_texts import FILLERS, adversarial_texts
from tests.tokenizer_factory import CONTROL_TOKENS, KINDS, SENTENCE_TOKENS, WORD_TOKENS
from tokenizer_service.text.encoding import EncodeOptions, Text
from vocabulary import AddedToken, BrokenChainError, Change, MarkedToken, NewToken

PLAIN = EncodeOptions(add_special_tokens=False)
PARSED = EncodeOptions(add_special_tokens=False, parse_special_tokens=True)
LIVE = ("<tool>", "<|im_", "日本")
SPELLINGS = (*CONTROL_TOKENS, *SENTENCE_TOKENS, *WORD_TOKENS, *LIVE)


@pytest.fixture(scope="module")
def grown(load):
    """Every kind of tokenizer with control tokens that were added while it ran."""

    def grown_kind(kind):
        base = load(kind)
        tokens = [
            NewToken(id=base.size + index, token=AddedToken(content, special=True))
            for index, content in enumerate(LIVE)
        ]
        return base.grown(Change(tokens=tuple(tokens)))

    return grown_kind


def control_ids_in(tokenizer, texts, options):
    # The unknown token is a control token too, and what unknown text becomes.
    unknown = {tokenizer.roles.get("unk")}
    rows = tokenizer.encode([Text(text) for text in texts], options)
    return [set(row.ids) & tokenizer.control_ids - unknown for row in rows]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ten_thousand_adversarial_texts_give_no_control_id(grown, kind):
    tokenizer = grown(kind)
    texts = adversarial_texts(SPELLINGS, 10_000)
    assert not any(control_ids_in(tokenizer, texts, PLAIN))
    assert any(control_ids_in(tokenizer, texts[:100], PARSED))  # they would, if parsed


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(pieces=st.lists(st.one_of(st.sampled_from(SPELLINGS), st.text(max_size=4)), max_size=8))
@settings(max_examples=100)
def test_no_text_around_control_tokens_brings_them_to_life(grown, kind, pieces):
    assert not any(control_ids_in(grown(kind), ["".join(pieces), " ".join(pieces)], PLAIN))


@pytest.mark.parametrize(
    ("kind", "token"), [("unigram", "</s>"), ("word_piece", "[sep]"), ("byte_level", "<|im_end|>")]
)
def test_a_parsed_control_token_has_the_same_id_as_the_template_gives(load, kind, token):
    tokenizer = load(kind)
    content = token.upper() if kind == "word_piece" else token
    (row,) = tokenizer.encode([Text(content)], PARSED)
    assert list(row.ids) == [tokenizer.id_of(content)]


def test_the_library_alone_would_let_a_unigram_vocabulary_spell_control_tokens(load):
    tokenizer = load("unigram")
    trusting = tokenizer.trusting.whole.from_str(tokenizer.trusting.whole.to_str())
    trusting.encode_special_tokens = True
    assert tokenizer.id_of("</s>") in trusting.encode("</s>", add_special_tokens=False).ids
    (row,) = tokenizer.encode([Text("</s>")], PLAIN)
    assert tokenizer.id_of("</s>") not in row.ids


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(pieces=st.lists(st.sampled_from((*SPELLINGS, *FILLERS)), max_size=8))
@settings(max_examples=50)
def test_plain_text_with_control_tokens_is_kept_to_the_byte(grown, kind, pieces):
    tokenizer = grown(kind)
    text = "".join(pieces)
    (row,) = tokenizer.encode(
        [Text(text)], EncodeOptions(add_special_tokens=False, token_bytes=True)
    )
    if kind == "byte_fallback" and text:  # whose normalizer writes spaces as ▁
        text = " " + text.replace("▁", " ")
    assert b"".join(row.token_bytes) == text.encode()


@given(text=st.text(max_size=60))
def test_text_without_control_tokens_is_encoded_the_same_either_way(load, text):
    tokenizer = load("unigram")
    plain, parsed = (tokenizer.encode([Text(text)], options)[0] for options in (PLAIN, PARSED))
    if not any(token in text for token in SENTENCE_TOKENS):
        assert list(plain.ids) == list(parsed.ids)


def test_growing_leaves_the_revision_before_as_it_was(load):
    tokenizer = load("byte_level")
    before = list(tokenizer.encode([Text("<tool> zebra")], PARSED)[0].ids)
    new = (
        NewToken(id=tokenizer.size, token=AddedToken("<tool>", special=True)),
        NewToken(id=tokenizer.size + 1, token=AddedToken("zebra")),
    )
    grown = tokenizer.grown(Change(tokens=new))
    assert list(tokenizer.encode([Text("<tool> zebra")], PARSED)[0].ids) == before
    assert tokenizer.size == 400
    (parsed,) = grown.encode([Text("<tool>zebra")], PARSED)
    assert list(parsed.ids) == [400, 401]
    (plain,) = grown.encode([Text("<tool>zebra")], PLAIN)
    assert list(plain.ids)[-1] == 401
    assert 400 not in plain.ids


def test_a_plain_token_that_becomes_special_is_kept_out_of_untrusted_text(load):
    tokenizer = load("byte_level").grown(
        Change(tokens=(NewToken(400, AddedToken("<a>")), NewToken(401, AddedToken("<b>"))))
    )
    marked = tokenizer.grown(Change(marked_tokens=(MarkedToken(400, _special("<a>")),)))
    assert list(marked.encode([Text("<a><b>")], PARSED)[0].ids) == [400, 401]
    (ids,) = (marked.encode([Text("<a><b>")], PLAIN)[0].ids,)
    assert 400 not in ids
    assert ids[-1] == 401
    (aliased,) = marked.encode([Text(marked.aliases.of(400))], PLAIN)
    assert list(aliased.ids) == [400]


@pytest.mark.parametrize("kind", ["byte_level", "unigram", "word_piece"])
def test_a_plain_token_of_the_model_becomes_special_and_keeps_its_id(load, kind):
    # As `<unused0>` of Gemma: an added token, and a piece of the model too.
    piece = next(token for token in load(kind).table.tokens[10:] if token.isalpha())
    piece_id = load(kind).id_of(piece)
    flags = tokenizers.AddedToken(piece, special=False, normalized=False)
    tokenizer = dataclasses.replace(
        load(kind),
        trusting=load(kind).trusting.changed({piece_id: flags}),
        plain=load(kind).plain.changed({piece_id: flags}),
    )
    marked = tokenizer.grown(Change(marked_tokens=(MarkedToken(piece_id, _special(piece)),)))
    assert piece_id in marked.encode([Text(piece)], PARSED)[0].ids
    assert piece_id not in marked.encode([Text(piece)], PLAIN)[0].ids
    assert piece_id in marked.encode([Text(marked.aliases.of(piece_id))], PLAIN)[0].ids
    after = marked.grown(Change(tokens=(NewToken(marked.size, AddedToken("<new>")),)))
    assert after.plain.whole.token_to_id("<new>") == marked.size


def test_a_piece_that_becomes_special_is_still_what_ordinary_text_is_made_of(load):
    tokenizer = load("byte_level")
    marked = MarkedToken(tokenizer.id_of("a"), _special("a"))
    after = tokenizer.grown(Change(marked_tokens=(marked,)))
    for text in ("a cab", "Paris and an apple"):
        assert after.encode([Text(text)], PLAIN) == tokenizer.encode([Text(text)], PLAIN)
    assert marked.id in after.encode([Text("Paris")], PARSED)[0].ids


def test_a_mark_with_the_id_of_another_entry_breaks_the_chain(load):
    with pytest.raises(BrokenChainError):
        load("byte_level").grown(Change(marked_tokens=(MarkedToken(9, _special("a")),)))


def _special(content):
    return AddedToken(content, special=True)


def test_a_thousand_revisions_keep_every_id(load):
    tokenizer = load("byte_level")
    for index in range(1000):
        new = NewToken(id=tokenizer.size, token=AddedToken(f"<t{index}>", special=index % 2 == 0))
        tokenizer = tokenizer.grown(Change(tokens=(new,)))
    assert tokenizer.size == 1400
    assert [tokenizer.id_of(f"<t{index}>") for index in range(1000)] == [*range(400, 1400)]
    assert tokenizer.control_ids == {0, 1, 2, *range(400, 1400, 2)}
