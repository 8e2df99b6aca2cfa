from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from tests.tokenizer_factory import KINDS
from tokenizer_service.text import growing_tokenizer
from tokenizer_service.text.growing_tokenizer import MIN_WAITING, GrowingTokenizer, WrongIdError

contents = st.one_of(
    st.text(min_size=1, max_size=6),
    st.sampled_from(["<a>", "<a", "a>", "<A>", "the", " x", "x ", "日本", "é", "e\u0301"]),
)
tokens = st.lists(
    st.builds(
        AddedToken,
        contents,
        special=st.booleans(),
        single_word=st.booleans(),
        lstrip=st.booleans(),
        rstrip=st.booleans(),
        normalized=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def token(content, **flags):
    return AddedToken(content, **({"special": True, "normalized": False} | flags))


def grown_by(tokenizer, new):
    """Adds tokens one by one, and leaves out what the library would not give a new id."""
    state, added = tokenizer.trusting, []
    for each in new:
        try:
            state = state.grown({tokenizer.size + len(added): each})
        except WrongIdError:
            continue
        added.append(each)
    return state, added


@pytest.fixture
def first(load):
    """A byte-level vocabulary with one live token, after which others may wait."""
    return load("byte_level").trusting.grown({400: token("<first>")})


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(new=tokens, texts=st.lists(st.text(max_size=12), max_size=3))
@settings(max_examples=80, deadline=None)
def test_every_text_is_encoded_as_by_a_tokenizer_that_was_made_of_all_tokens(
    load, kind, new, texts
):
    base = load(kind)
    # Which of two tokens the normalizer makes one, the library chooses at random.
    assume(len({base.normalized(one.content) for one in new}) == len({o.content for o in new}))
    state, added = grown_by(base, [token("<first>"), *new])
    library = Tokenizer.from_str(base.trusting.whole.to_str())
    library.add_tokens(added)
    joined = [*texts, *(one.content for one in new)]
    joined += [one.content.upper() for one in new] + [one.content.join(texts) for one in new]
    joined += ["x".join(texts), " ".join(one.content for one in new)]
    for text in joined:
        expected = library.encode(text, add_special_tokens=False).ids
        assert list(state.ids_of([text])[0]) == expected
        lazy, _ = grown_by(base, [token("<first>"), *new])  # in which all of them wait
        one = lazy.for_texts([text])
        assert one.encode(text, add_special_tokens=False).ids == expected
    assert state.ids_of(joined) == [
        tuple(library.encode(text, add_special_tokens=False).ids) for text in joined
    ]
    assert state.whole.to_str() == library.to_str()


def test_tokens_wait_until_a_text_has_one(first):
    made = first.whole
    state = first.grown({401: token("<a>")}).grown({402: token("<b>")})
    assert state.for_texts(["no such token", "<", "a>"]) is made
    assert state.id_of("<b>") == 402
    assert state.ids_of(["x<b>"])[0][-1] == 402
    assert state.for_texts(["no such token"]) is made  # nothing was made for that
    later = state.for_texts(["no such token", "x<b>"])
    assert later is not made
    assert later.token_to_id("<b>") == 402
    assert state.for_texts(["no such token"]) is later
    assert state.grown({403: token("<c>")}).for_texts([""]) is later


def test_no_more_tokens_wait_than_may(first):
    made, state = first.whole, first
    for index in range(MIN_WAITING):
        state = state.grown({401 + index: token(f"<{index}>")})
    assert state.for_texts([""]) is made
    assert state.grown({401 + MIN_WAITING: token("<last>")}).for_texts([""]) is not made


def test_one_token_more_costs_the_same_number_of_others_built_again_however_many_there_are(
    first, monkeypatch
):
    built = 0
    clone = growing_tokenizer._clone

    def counting(tokenizer, tokens):
        nonlocal built
        built += len(tokens)
        return clone(tokenizer, tokens)

    monkeypatch.setattr(growing_tokenizer, "_clone", counting)
    state, size, per_token = first, 0, []
    for larger in (500, 1000, 2000, 4000):
        before = built
        for index in range(size, larger):
            state = state.grown({401 + index: token(f"<{index}>")})
        per_token.append((built - before) / (larger - size))
        size = larger
    assert max(per_token) < 8


def test_the_first_token_and_what_a_normalizer_changes_do_not_wait(load):
    base = load("byte_level").trusting
    assert base.grown({400: token("<first>")}).for_texts([""]) is not base.whole
    lower = load("word_piece").trusting
    size = load("word_piece").size
    state = lower.grown({size: token("<first>")})
    made = state.whole
    assert state.grown({size + 1: token("<a>")}).for_texts(["<A>"]) is made
    normalized = token("<A>", special=False, normalized=True)
    assert state.grown({size + 1: normalized}).for_texts([""]) is not made


def test_a_token_that_has_an_id_gets_no_other(first):
    for content in ("<first>", "a", "<|im_end|>"):
        with pytest.raises(WrongIdError):
            first.grown({401: token(content)})
    state = first.grown({401: token("<a>")})
    with pytest.raises(WrongIdError):
        state.grown({402: token("<a>")})
    with pytest.raises(WrongIdError):
        first.grown({401: token("<a>"), 402: token("<a>")})
    with pytest.raises(WrongIdError, match="500"):
        first.grown({500: token("<a>")})


def test_growing_leaves_what_was_there_as_it_was(first):
    state = first.grown({401: token("<a>")})
    assert state.ids_of(["<a>"]) == [(401,)]
    assert first.id_of("<a>") is None
    assert 401 not in first.ids_of(["<a>"])[0]
    assert first.tokens.keys() == state.tokens.keys() - {401}


def test_many_threads_get_the_same_tokenizer(load):
    base = load("byte_level").trusting
    for _ in range(20):
        state = GrowingTokenizer.of(base.whole, base.tokens).grown({400: token("<first>")})
        for index in range(10):
            state = state.grown({401 + index: token(f"<{index}>")})
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _, one=state: one.for_texts(["<3>"]), range(8)))
        assert len({id(one) for one in made}) == 1
        assert made[0].token_to_id("<9>") == 410
