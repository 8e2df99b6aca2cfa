import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adversarial_texts import FILLERS, adversarial_texts
from tests.tokenizer_factory import CONTROL_TOKENS, KINDS, SENTENCE_TOKENS, WORD_TOKENS
from tokenizer_service.text.encoding import EncodeOptions, Text
from vocabulary import AddedToken, Change, NewToken

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


def test_a_thousand_revisions_keep_every_id(load):
    tokenizer = load("byte_level")
    for index in range(1000):
        new = NewToken(id=tokenizer.size, token=AddedToken(f"<t{index}>", special=index % 2 == 0))
        tokenizer = tokenizer.grown(Change(tokens=(new,)))
    assert tokenizer.size == 1400
    assert [tokenizer.id_of(f"<t{index}>") for index in range(1000)] == [*range(400, 1400)]
    assert tokenizer.control_ids == {0, 1, 2, *range(400, 1400, 2)}
