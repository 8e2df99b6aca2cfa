"""Our tokenizer against `PreTrainedTokenizerFast`, which may load torch here."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.tokenizer_factory import KINDS, make_tokenizer_folder
from tokenizer_service.chat.chat_text import ChatText, ControlTokenFinder
from tokenizer_service.growth import token_rules
from tokenizer_service.growth.token_rules import AdditionRules, TokenToAdd
from tokenizer_service.text import loading, padding, tokenizer_files
from tokenizer_service.text.encoding import EncodeOptions, Text, Truncation
from tokenizer_service.text.incremental import DecodeOptions
from vocabulary import AddedToken

TEXTS = (
    "The capital of France is Paris.",
    "Grüße aus München, 東京 🙂!  two  spaces ",
    "it 's , do n't ! we 've ' s",
    "<|im_start|>a</s>[SEP]<s>",
    "",
)
TRUSTED = {"parse_special_tokens": True}


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory):
    """The same files twice: read by us and by transformers."""
    pairs = {}

    def get(kind, **config):
        key = (kind, *config.items())
        if key not in pairs:
            folder = make_tokenizer_folder(tmp_path_factory.mktemp(kind), kind, **config)
            ours = loading.load(tokenizer_files.read(folder), "tiny")
            pairs[key] = ours, PreTrainedTokenizerFast.from_pretrained(folder)
        return pairs[key]

    return get


@pytest.fixture(params=sorted(KINDS))
def pair(request, pair_of):
    return pair_of(request.param)


def test_both_have_the_same_size_and_special_tokens(pair):
    ours, theirs = pair
    assert ours.size == len(theirs)
    for role, token_id in ours.roles.items():
        assert getattr(theirs, f"{role}_token_id") == token_id
    assert ours.control_ids >= set(theirs.all_special_ids)


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_texts_have_the_same_ids_masks_and_offsets(pair, add_special_tokens):
    ours, theirs = pair
    options = EncodeOptions(
        add_special_tokens=add_special_tokens,
        offset_unit="code_points",
        special_tokens_mask=True,
        token_type_ids=True,
        word_ids=True,
        tokens=True,
        **TRUSTED,
    )
    for row, text in zip(ours.encode([Text(t) for t in TEXTS], options), TEXTS, strict=True):
        expected = theirs(
            text,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=True,
        )
        assert list(row.ids) == expected["input_ids"]
        assert [tuple(span) for span in row.spans] == expected["offset_mapping"]
        assert list(row.special_tokens_mask) == expected["special_tokens_mask"]
        assert list(row.token_type_ids) == expected["token_type_ids"]
        assert [None if word < 0 else word for word in row.word_ids] == expected.word_ids()
        assert list(row.tokens) == expected.tokens()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("side", ["left", "right"])
@given(data=st.data())
@settings(max_examples=40)
def test_texts_and_pairs_are_cut_at_the_same_places(pair_of, kind, side, data):
    ours, theirs = pair_of(kind)
    text = data.draw(st.sampled_from(TEXTS[:3]))
    second = data.draw(st.one_of(st.none(), st.sampled_from(TEXTS[:4])))
    least = ours.template_length(pair=second is not None)
    max_length = data.draw(st.integers(max(least, 1), least + 30))
    options = EncodeOptions(
        truncation=Truncation(max_length, side), special_tokens_mask=True, **TRUSTED
    )
    (row,) = ours.encode([Text(text, second)], options)
    theirs.truncation_side = side
    expected = theirs(
        text,
        second,
        truncation="longest_first",
        max_length=max_length,
        return_special_tokens_mask=True,
    )
    assert list(row.ids) == expected["input_ids"]
    assert list(row.special_tokens_mask) == expected["special_tokens_mask"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_batches_are_padded_alike(pair_of, side, multiple):
    ours, theirs = pair_of("byte_level_template")
    rows = [row.ids for row in ours.encode([Text(t) for t in TEXTS], EncodeOptions(**TRUSTED))]
    length = padding.padded_length(
        [len(row) for row in rows], max_length=None, pad_to_multiple_of=multiple
    )
    padded = padding.pad(rows, length, side=side, pad_token_id=ours.pad_token_id)
    expected = theirs(
        list(TEXTS),
        padding="longest",
        padding_side=side,
        pad_to_multiple_of=multiple,
        return_tensors="np",
    )
    assert padded.input_ids.tolist() == expected["input_ids"].tolist()
    assert padded.attention_mask.tolist() == expected["attention_mask"].tolist()


@pytest.mark.parametrize("skip_special_tokens", [True, False])
@pytest.mark.parametrize("clean_up", [True, False, None])
def test_ids_have_the_same_text(pair, skip_special_tokens, clean_up):
    ours, theirs = pair
    if clean_up and ours.model_type == "BPE":
        pytest.skip("transformers ignores the option for BPE; we do what is asked")
    for row in ours.encode([Text(text) for text in TEXTS], EncodeOptions(**TRUSTED)):
        assert ours.decode(row.ids, DecodeOptions(skip_special_tokens, clean_up)) == theirs.decode(
            row.ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=clean_up
        )


@pytest.mark.parametrize("kind", ["byte_fallback", "unigram"])
@pytest.mark.parametrize("flags", [{"add_bos_token": True}, {"add_eos_token": True}])
def test_flags_about_bos_and_eos_do_not_overrule_tokenizer_json(pair_of, kind, flags):
    ours, theirs = pair_of(kind, bos_token="<s>", eos_token="</s>", **flags)
    for second in (None, "two"):
        (row,) = ours.encode([Text("one", second)], EncodeOptions())
        assert list(row.ids) == theirs("one", second)["input_ids"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_entries_that_become_special_are_read_and_left_out_as_by_transformers(
    kind, tmp_path_factory
):
    folder = make_tokenizer_folder(tmp_path_factory.mktemp("marked"), kind)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert theirs.add_special_tokens({"additional_special_tokens": ["a", "b"]}) == 2
    before = loading.load(tokenizer_files.read(folder), "tiny")
    asked = [TokenToAdd(AddedToken(content, special=True)) for content in ("a", "b")]
    rules = AdditionRules(text_changes=True)
    ours = token_rules.plan(before, before.size, asked, rules).after
    assert ours.size == before.size == len(theirs)
    texts = [*TEXTS, "a cab and a dab of paprika", "ab ba", " a ", "Abba"]
    for text in texts:
        (row,) = ours.encode([Text(text)], EncodeOptions(**TRUSTED))
        assert list(row.ids) == theirs(text)["input_ids"]
        for skip in (True, False):
            options = DecodeOptions(skip_special_tokens=skip, clean_up_spaces=False)
            expected = theirs.decode(
                row.ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
            assert ours.decode(row.ids, options) == expected


def test_a_conversation_has_the_same_ids_as_with_sanitized_control_tokens(pair_of):
    ours, theirs = pair_of("byte_level")
    messages = [{"role": "user", "content": "hi <|im_end|> there <|endoftext|>"}]
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    finder = ControlTokenFinder(
        {ours.table.tokens[i]: ours.aliases.of(i) for i in ours.control_ids}
    )
    text = ChatText(finder, [messages[0]["content"], theirs.chat_template])
    protected = theirs.apply_chat_template(
        text.protect(messages), tokenize=False, add_generation_prompt=True
    )
    assert text.to_display(protected) == rendered
    (row,) = ours.encode([Text(text.to_encode(protected))], EncodeOptions(add_special_tokens=False))
    sanitized = theirs.apply_chat_template(
        messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    # Both keep the control tokens of the message out, and ours cuts it in fewer places.
    assert [i for i in row.ids if i in ours.control_ids] == [
        i for i in sanitized if i in ours.control_ids
    ]
    assert ours.decode(row.ids, DecodeOptions(skip_special_tokens=False)) == rendered
