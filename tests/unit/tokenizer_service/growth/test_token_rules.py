import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from rpc.errors import InvalidField, TokenExists
from tests.tokenizer_factory import make_tokenizer_folder
from tokenizer_service.growth import token_rules
from tokenizer_service.growth.token_rules import AdditionRules, TokenToAdd
from tokenizer_service.text import loading, tokenizer_files
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.growing_tokenizer import MIN_WAITING
from tokenizer_service.text.token_bytes import TokenType
from vocabulary import AddedToken, Change, MarkedToken

ANY_TEXT = AdditionRules(text_changes=True)
ALL = AdditionRules(text_changes=True, unusual_characters=True)


@pytest.fixture(scope="module")
def load_normalizing(tmp_path_factory):
    """A byte-level BPE that removes accents."""
    folder = make_tokenizer_folder(tmp_path_factory.mktemp("normalizing"))
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    library.save(str(folder / "tokenizer.json"))
    return loading.load(tokenizer_files.read(folder), "tiny")


def special(content, **members):
    return TokenToAdd(AddedToken(content, special=True), **members)


def plain(content, **flags):
    return TokenToAdd(AddedToken(content, normalized=True, **flags))


def plan(tokenizer, *tokens, rules=AdditionRules(), base_size=400):  # noqa: B008  # immutable
    return token_rules.plan(tokenizer, base_size, tokens, rules)


def test_ids_are_dense_and_the_pieces_of_the_text_are_reported(load):
    tokenizer = load("byte_level")
    addition = plan(tokenizer, special("<a>"), special("<b>"))
    assert [result.id for result in addition.results] == [400, 401]
    assert [new.id for new in addition.change.tokens] == [400, 401]
    (pieces,) = tokenizer.encode([Text("<a>")], EncodeOptions(add_special_tokens=False))
    assert addition.results[0].previous_ids == tuple(pieces.ids)
    assert addition.change.tokens[0].previous_ids == tuple(pieces.ids)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "x" * 65,
        "\U0001f642" * 65,
        "a\0b",
        "a\x1bb",
        "\t",
        " ",
        "e\u0301",
        "a\u202eb",
        "\ufeffx",
        "\ue000",
        "a\u200bb",
        "\u2028",
    ],
    ids=ascii,
)
def test_a_text_that_is_not_allowed_is_refused_by_name(load, content):
    with pytest.raises(InvalidField) as caught:
        plan(load("byte_level"), special("<a>"), special(content))
    assert caught.value.metadata["field"] == "tokens[1].token.content"


def test_every_bad_text_is_named_at_once(load):
    with pytest.raises(InvalidField) as caught:
        plan(load("byte_level"), special(""), special("<a>"), special("<a>"))
    assert [one.field for one in caught.value.violations] == [
        "tokens[0].token.content",
        "tokens[2].token.content",
    ]


@pytest.mark.parametrize("content", ["e\u0301", "a\u202eb", "\ue000", "a\x1bb"], ids=ascii)
def test_unusual_characters_are_accepted_when_allowed(load, content):
    rules = AdditionRules(unusual_characters=True)
    assert plan(load("byte_level"), special(content), rules=rules).change.tokens


@pytest.mark.parametrize("content", ["a\0", "\0"], ids=ascii)
def test_nul_is_never_accepted(load, content):
    with pytest.raises(InvalidField):
        plan(load("byte_level"), special(content), rules=AdditionRules(unusual_characters=True))


@pytest.mark.parametrize(
    "content", ["padde", "San Francisco", "t's", "Straße", "e,", "i++", "(a)", "|a"]
)
def test_a_plain_token_that_occurs_in_ordinary_text_must_be_allowed(load, content):
    tokenizer = load("byte_level")
    with pytest.raises(InvalidField, match="allow_text_changes"):
        plan(tokenizer, plain(content))
    (result,) = plan(tokenizer, plain(content), rules=ANY_TEXT).results
    assert result.changes_text


@pytest.mark.parametrize("content", ["<tool>", "[[x]]", "@@"])
def test_a_plain_token_with_signs_of_its_own_changes_no_ordinary_text(load, content):
    (result,) = plan(load("byte_level"), plain(content)).results
    assert not result.changes_text


def test_a_special_token_never_changes_text(load):
    (result,) = plan(load("byte_level"), special("zebra")).results
    assert not result.changes_text


def test_an_equal_token_is_reported_and_not_added(load):
    addition = plan(load("byte_level"), special("<|im_end|>"), special("<new>"))
    assert [(one.id, one.existing) for one in addition.results] == [(2, True), (400, False)]
    assert len(addition.change.tokens) == 1


def test_when_every_token_exists_there_is_no_change(load):
    assert plan(load("byte_level"), special("<|im_end|>")).change == Change()


@pytest.mark.parametrize(
    "token",
    [
        TokenToAdd(AddedToken("<|im_end|>")),
        TokenToAdd(AddedToken("<|im_end|>", special=True, lstrip=True)),
        TokenToAdd(AddedToken("Ġ")),  # a piece, but one that stands for a space
        TokenToAdd(AddedToken("é")),  # the stand-in of a byte that is no character
        TokenToAdd(AddedToken("Ġ", special=True)),
    ],
)
def test_a_token_that_exists_as_another_thing_is_refused(load, token):
    with pytest.raises(TokenExists):
        plan(load("byte_level"), token)


VECTOR, OTHER = b"\0\0\x80\x3f" * 4, b"\0\0\0\x40" * 4
TRAINED = {"initialization": "values", "input_values": VECTOR}
COPIED = {"initialization": "copy", "copy_token_id": 5}


@pytest.mark.parametrize("first", [{}, TRAINED, COPIED, {"initialization": "zero"}])
def test_a_token_that_is_added_again_as_it_was_exists_however_much_is_said_about_it(load, first):
    tokenizer = plan(load("byte_level"), special("<a>"), special("<b>", **first)).after
    tokenizer = plan(tokenizer, special("<c>")).after
    for again in (first, {}):
        assert plan(tokenizer, special("<b>", **again)).change == Change()


@pytest.mark.parametrize(
    ("first", "again", "attribute"),
    [
        ({}, TRAINED, "input_values"),
        (TRAINED, {**TRAINED, "input_values": OTHER}, "input_values"),
        (TRAINED, {**TRAINED, "output_values": OTHER}, "output_values"),
        ({}, {"generable": True}, "generable"),
        (TRAINED, {"generable": False}, "generable"),
        (COPIED, {**COPIED, "copy_token_id": 6}, "copy_token_id"),
        (TRAINED, {"initialization": "zero"}, "initialization"),
    ],
)
def test_rows_that_are_given_for_a_token_that_exists_and_differ_are_refused(
    load, first, again, attribute
):
    tokenizer = plan(load("byte_level"), special("<b>", **first)).after
    with pytest.raises(TokenExists, match=f"Token 1 exists as id 400 with other .*{attribute}"):
        plan(tokenizer, special("<c>"), special("<b>", **again))


@pytest.mark.parametrize("again", [TRAINED, {"generable": False}, {"initialization": "mean"}])
def test_the_rows_of_a_token_of_the_checkpoint_are_the_models(load, again):
    with pytest.raises(TokenExists):
        plan(load("byte_level"), special("<|im_end|>", **again))
    assert plan(load("byte_level"), special("<|im_end|>", generable=True)).change == Change()


def test_a_piece_of_the_model_that_stands_for_the_same_text_exists(load):
    (result,) = plan(load("byte_level"), plain("a")).results
    assert result.existing


def test_a_role_needs_a_special_token_and_is_assigned(load):
    addition = plan(load("byte_level"), special("<pad>", roles=("pad",)))
    assert [(one.role, one.token_id) for one in addition.change.special_tokens] == [("pad", 400)]
    with pytest.raises(InvalidField, match=r"tokens\[0\]\.role"):
        plan(load("byte_level"), TokenToAdd(AddedToken("<pad>"), roles=("pad",)))


def test_only_values_make_a_token_generable_unless_asked(load):
    addition = plan(
        load("byte_level"),
        special("<a>"),
        special("<b>", initialization="values", input_values=b"\0" * 4),
        special("<c>", generable=True),
    )
    assert [new.generable for new in addition.change.tokens] == [False, True, True]


def test_the_total_of_added_tokens_is_limited(load):
    rules = AdditionRules(max_added_tokens=1)
    assert plan(load("byte_level"), special("<a>"), rules=rules).change.tokens
    with pytest.raises(InvalidField, match="1 are left"):
        plan(load("byte_level"), special("<a>"), special("<b>"), rules=rules)


def test_an_id_to_copy_must_exist(load):
    with pytest.raises(InvalidField, match="copy_token_id"):
        plan(load("byte_level"), special("<a>", initialization="copy", copy_token_id=400))


def test_a_token_may_have_several_roles_and_one_that_exists_may_get_one(load):
    addition = plan(load("byte_level"), special("<|im_end|>", roles=("eos", "pad")))
    assert [(one.role, one.token_id) for one in addition.change.special_tokens] == [
        ("eos", 2),
        ("pad", 2),
    ]
    assert addition.after.pad_token_id == 2
    assert plan(addition.after, special("<|im_end|>", roles=("pad",))).change == Change()


def test_a_token_that_the_normalizer_makes_nothing_of_is_refused(load_normalizing):
    with pytest.raises(InvalidField, match="removed by the normalizer"):
        plan(load_normalizing, plain("\u0301"), rules=ALL)
    raw = TokenToAdd(AddedToken("\u0301"), initialization="zero")
    assert plan(load_normalizing, raw, rules=ALL).change.tokens


def test_two_tokens_that_the_normalizer_makes_one_of_are_refused(load):
    tokenizer = load("word_piece")
    with pytest.raises(InvalidField, match="never be matched"):
        plan(tokenizer, plain("<Tool>"), plain("<tool>"), rules=ANY_TEXT, base_size=tokenizer.size)
    one = plan(tokenizer, plain("<Tool>"), base_size=tokenizer.size).after
    with pytest.raises(InvalidField, match=r"never be matched|take the text"):
        plan(one, plain("<TOOL>"), base_size=tokenizer.size)


def test_a_token_that_another_one_is_matched_inside_of_is_refused(load):
    # What is not normalized is matched first, wherever it is.
    with pytest.raises(InvalidField) as caught:
        plan(load("byte_level"), special("<<"), plain("<<x>>"))
    assert caught.value.metadata["field"] == "tokens[1].token.content"
    assert plan(load("byte_level"), special("<<"), special("<<x>>")).change.tokens


def test_a_token_that_takes_the_text_of_an_older_one_is_refused(load):
    grown = plan(load("byte_level"), plain("<<x>>")).after
    with pytest.raises(InvalidField, match="text of the token with id 400"):
        plan(grown, special("<<"))
    lower = load("word_piece")
    older = plan(lower, plain("<X>"), base_size=lower.size).after
    with pytest.raises(InvalidField, match=r"never be matched|text of the token with id"):
        plan(older, plain("<x>"), base_size=lower.size)


def test_a_special_token_does_not_become_plain(load):
    with pytest.raises(TokenExists, match="other special; set special to true"):
        plan(load("byte_level"), plain("<|im_end|>"))


def test_a_plain_token_becomes_special_and_keeps_its_id(load):
    grown = plan(load("byte_level"), plain("<a>"), special("<b>")).after
    addition = plan(grown, special("<a>"), special("<c>"))
    assert addition.change.marked_tokens == (MarkedToken(400, AddedToken("<a>", special=True)),)
    assert [new.id for new in addition.change.tokens] == [402]
    assert [(one.id, one.becomes_special) for one in addition.results] == [
        (400, True),
        (402, False),
    ]
    assert addition.after.control_ids == {0, 1, 2, 400, 401, 402}
    assert addition.after.table.types[400] is TokenType.SPECIAL
    assert grown.table.types[400] is TokenType.ADDED
    assert plan(addition.after, special("<a>")).change == Change()


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "unigram", "word_piece"])
def test_a_piece_of_ordinary_text_becomes_special_only_when_text_may_change(load, kind):
    tokenizer = load(kind)
    with pytest.raises(TokenExists, match=r"Token 1 .* with other special; .*allow_text_changes"):
        plan(tokenizer, special("<new>", initialization="zero"), special("a"))
    addition = plan(tokenizer, special("a"), special("b"), rules=ANY_TEXT)
    assert [one.id for one in addition.results] == [tokenizer.id_of("a"), tokenizer.id_of("b")]
    assert all(one.existing and one.becomes_special for one in addition.results)
    assert all(one.changes_text for one in addition.results)
    assert addition.after.size == tokenizer.size
    assert addition.after.reference.revision == 1


def test_a_token_that_becomes_special_may_get_a_role_at_once(load):
    addition = plan(load("byte_level"), special("a", roles=("pad",)), rules=ANY_TEXT)
    assert addition.after.pad_token_id == load("byte_level").id_of("a")


def test_vectors_for_a_token_that_becomes_special_are_refused(load):
    with pytest.raises(TokenExists, match="other input_values"):
        plan(load("byte_level"), special("a", **TRAINED), rules=ANY_TEXT)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_another_flag_of_a_token_that_exists_is_named(load, flag):
    token = TokenToAdd(AddedToken("<|im_end|>", special=True, **{flag: True}))
    with pytest.raises(TokenExists, match=f"other {flag}; set {flag} to false") as caught:
        plan(load("byte_level"), token)
    assert caught.value.metadata["attribute"] == flag


@given(content=st.text(max_size=70))
def test_any_text_is_added_as_planned_or_refused_by_name(load, content):
    tokenizer = load("byte_level")
    try:
        addition = plan(tokenizer, special(content))
    except (InvalidField, TokenExists):
        return
    grown = tokenizer.grown(addition.change)
    (row,) = grown.encode([Text(content)], EncodeOptions(parse_special_tokens=True))
    if addition.change.tokens:
        assert list(row.ids) == [400]
        assert grown.table.token_bytes[400] == content.encode()


def opcodes_and_bytes_of(call):
    """Returns what a call does, counted: opcodes of the interpreter, and most bytes held."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    tracemalloc.start()
    try:
        call()
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_more_token_costs_after_many_what_it_costs_at_first(load):
    tokenizer = load("byte_level")
    rules = AdditionRules(max_added_tokens=10_000)
    per_call = MIN_WAITING + 1  # after which none waits
    costs = []
    for call in range(24):
        new = [special(f"<|tool_{call * per_call + index:04d}|>") for index in range(per_call)]
        tokenizer = plan(tokenizer, *new, rules=rules).after
        if call in (0, 23):

            def add(to=tokenizer):
                return plan(to, special("<|one_more|>"), rules=rules).after

            assert add().size == tokenizer.size + 1
            costs.append(opcodes_and_bytes_of(add))
    (first_opcodes, first_bytes), (last_opcodes, last_bytes) = costs
    assert last_opcodes < 1.1 * first_opcodes
    assert last_bytes < first_bytes + 128 * 1024, "something is copied as a whole"


def test_tokenizers_that_grew_out_of_one_have_tokens_of_their_own(load):
    tokenizer = load("byte_level")
    first, second = (plan(tokenizer, special(content)).after for content in ("<a>", "<bc>"))
    longer = plan(first, special("<d>")).after
    assert [list(one.table.entries())[400:] for one in (tokenizer, first, second, longer)] == [
        [],
        [(b"<a>", "<a>", TokenType.SPECIAL)],
        [(b"<bc>", "<bc>", TokenType.SPECIAL)],
        [(b"<a>", "<a>", TokenType.SPECIAL), (b"<d>", "<d>", TokenType.SPECIAL)],
    ]
    assert [len(one.table) for one in (tokenizer, first, second, longer)] == [400, 401, 401, 402]
