import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rpc.errors import InvalidField, TokenExists
from tests.tokenizer_factory import CORPUS, KINDS
from tokenizer_service.growth import token_rules
from tokenizer_service.growth.token_effects import changed_entries, ids_of, text_effects
from tokenizer_service.growth.token_rules import AdditionRules, TokenToAdd
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.tokenizer import library_token
from vocabulary import AddedToken

ALL = AdditionRules(unusual_characters=True, text_changes=True)
WORDS = sorted({word for text in CORPUS for word in text.split()})

contents = st.one_of(
    st.text(min_size=1, max_size=8),
    st.sampled_from(["<tool>", "</tool>", "<Tool>", "the", "The", " x", "é", "[[x]]", "<", "日本"]),
)
flags = st.fixed_dictionaries(
    {name: st.booleans() for name in ("special", "single_word", "lstrip", "rstrip", "normalized")}
)
new_tokens = st.lists(
    st.builds(lambda content, members: AddedToken(content, **members), contents, flags),
    min_size=1,
    max_size=4,
)
ordinary = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def grown_by(tokenizer, tokens, rules=ALL):
    """Adds what is allowed, one call per token, and returns what that was."""
    size, added = tokenizer.size, []
    for token in tokens:
        asked = TokenToAdd(token, initialization="zero")
        try:
            addition = token_rules.plan(tokenizer, size, [asked], rules)
        except (InvalidField, TokenExists):
            continue
        if addition.after is not tokenizer:
            added.append((token, addition.results[0].id))
        tokenizer = addition.after
    return tokenizer, added


def from_scratch(tokenizer, added):
    """The library's own tokenizer, given the same tokens at once."""
    library = Tokenizer.from_str(tokenizer.trusting.whole.to_str())
    library.add_tokens([library_token(token) for token, _ in added])
    return library


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(tokens=new_tokens, texts=st.lists(st.text(max_size=20), max_size=3), words=ordinary)
@settings(max_examples=60)
def test_a_grown_tokenizer_equals_the_library_given_the_same_tokens(
    load, kind, tokens, texts, words
):
    base = load(kind)
    grown, added = grown_by(base, tokens)
    library = from_scratch(base, added)
    joined = [words, "".join(token.content for token in tokens), *texts]
    joined += [token.content.join(texts) for token in tokens]
    joined += [f" {token.content.upper()}\t{words}" for token in tokens]
    expected = [library.encode(text, add_special_tokens=True).ids for text in joined]
    options = EncodeOptions(parse_special_tokens=True)
    rows = grown.encode([Text(text) for text in joined], options)
    assert [list(row.ids) for row in rows] == expected
    assert grown.trusting.whole.to_str() == library.to_str()


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(tokens=new_tokens)
@settings(max_examples=60)
def test_every_added_token_is_encoded_to_the_id_that_was_reported(load, kind, tokens):
    grown, added = grown_by(load(kind), tokens)
    # The last one, as a plain token may become special.
    for token_id, token in {token_id: token for token, token_id in added}.items():
        assert ids_of(grown, [token.content], parse=True) == [(token_id,)]
        assert token.special or ids_of(grown, [token.content], parse=False) == [(token_id,)]
        assert grown.id_of(token.content) == token_id


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(tokens=new_tokens, words=ordinary)
@settings(max_examples=60)
def test_ordinary_text_stays_as_it_was_unless_a_change_of_text_was_allowed(
    load, kind, tokens, words
):
    base = load(kind)
    grown, _ = grown_by(base, tokens, AdditionRules())
    assert ids_of(grown, [words], parse=False) == ids_of(base, [words], parse=False)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(tokens=new_tokens, texts=st.lists(st.one_of(ordinary, st.text(max_size=20)), min_size=1))
@settings(max_examples=30)
def test_a_preview_of_texts_is_what_becomes_of_them(load, kind, tokens, texts):
    base = load(kind)
    grown, added = grown_by(base, tokens)
    library = from_scratch(base, added)
    effects = text_effects(base, grown, texts)
    for text, effect in zip(texts, effects, strict=True):
        encoded = library.encode(text, add_special_tokens=False).ids
        assert list(effect.after) == encoded
        plain = [ids_of(one, [text], parse=False) for one in (base, grown)]
        assert effect.changes_text == (plain[0] != plain[1])


def test_the_pieces_that_a_plain_token_changes_are_found(load):
    base = load("byte_level")
    addition = token_rules.plan(base, 400, [TokenToAdd(AddedToken("padde"))], ALL)
    (entries,) = changed_entries(base, addition.after, [AddedToken("padde")])
    assert {base.table.token_bytes[token_id] for token_id in entries} >= {b" padded"}
    for token_id, token_bytes in enumerate(base.table.token_bytes):
        if b"padde" in token_bytes:
            text = token_bytes.decode()
            before, after = (ids_of(one, [text], parse=False) for one in (base, addition.after))
            assert (token_id in entries) == (before != after)


def test_a_token_of_whole_words_leaves_the_words_around_it(load):
    base = load("byte_level")
    token = AddedToken("un", single_word=True)
    addition = token_rules.plan(base, 400, [TokenToAdd(token)], ALL)
    assert changed_entries(base, addition.after, [token]) == [[]]


def test_a_lower_casing_normalizer_is_looked_through(load):
    base = load("word_piece")
    token = AddedToken("PADDE", normalized=True)
    addition = token_rules.plan(base, base.size, [TokenToAdd(token)], ALL)
    (entries,) = changed_entries(base, addition.after, [token])
    assert {base.table.tokens[token_id] for token_id in entries} >= {"padded"}


def test_a_special_token_changes_no_entry(load):
    base = load("byte_level")
    token = AddedToken("padde", special=True)
    addition = token_rules.plan(base, 400, [TokenToAdd(token)], ALL)
    assert changed_entries(base, addition.after, [token]) == [[]]
