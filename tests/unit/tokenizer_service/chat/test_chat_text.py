import random
import re

import pytest

from tokenizer_service.chat.chat_text import ChatText, ControlTokenFinder, NoStandInError, strings
from tokenizer_service.text.control_tokens import Aliases

ALIASES = Aliases()


def chat_text(control_tokens, *texts):
    aliases = {token: ALIASES.of(index) for index, token in enumerate(control_tokens)}
    return ChatText(ControlTokenFinder(aliases), texts)


@pytest.mark.parametrize(
    ("control_tokens", "message"),
    [
        (["<|end|>"], "a<|end|>b<|end|>"),
        (["ab", "ba"], "aba"),
        (["aa"], "aaaaa"),
        (["<s>", "<s>x"], "<s>x<s>"),
        (["\n"], "a\nb"),
        (["."], "a.b"),
    ],
)
def test_a_message_loses_its_control_tokens_and_gets_them_back(control_tokens, message):
    text = chat_text(control_tokens, message)
    protected = text.protect(message)
    assert not any(token in protected for token in control_tokens)
    assert len(protected) == len(message)
    assert text.to_display(protected) == message
    assert text.to_encode(protected) == message


def test_random_overlaps_leave_no_control_token():
    generator = random.Random(1)
    for _ in range(300):
        tokens = {"".join(generator.choices("ab<", k=generator.randint(1, 4))) for _ in range(4)}
        message = "".join(generator.choices("ab<", k=40))
        text = chat_text(tokens, message)
        assert not any(token in text.protect(message) for token in tokens)


def test_random_texts_get_the_aliases_of_the_longest_tokens_from_the_left():
    generator = random.Random(2)
    for _ in range(300):
        tokens = ["".join(generator.choices("ab<", k=generator.randint(1, 4))) for _ in range(4)]
        tokens = sorted(set(tokens), key=len, reverse=True)
        message = "".join(generator.choices("ab<", k=40))
        aliases = {token: ALIASES.of(index) for index, token in enumerate(tokens)}
        any_token = re.compile("|".join(map(re.escape, tokens)))
        expected = any_token.sub(lambda match, names=aliases: names[match[0]], message)
        assert ControlTokenFinder(aliases).as_aliases(message) == expected


def test_control_tokens_of_the_template_become_aliases():
    text = chat_text(["<|end|>", "<|end|>x"], "hi <|end|>")
    rendered = text.protect("hi <|end|>") + "<|end|>" + "<|end|>x"
    assert text.to_encode(rendered) == ("hi <|end|>" + ALIASES.of(0) + ALIASES.of(1))
    assert text.to_display(rendered) == "hi <|end|><|end|><|end|>x"


def test_stand_ins_are_characters_that_nobody_used():
    used = "\U000f0000\U000f0001"
    text = chat_text(["<s>"], f"<s>{used}")
    assert text.to_display(text.protect(f"<s>{used}")) == f"<s>{used}"
    assert not set(text.protect("<s>")) & set(used)


def test_a_text_of_all_private_characters_is_refused():
    everything = "".join(map(chr, (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))))
    with pytest.raises(NoStandInError):
        chat_text(["<s>"], everything)


def test_keys_and_nested_values_are_protected_too():
    text = chat_text(["<s>"], "<s>")
    value = {"a<s>": ["<s>", {"b": "<s>", "c": 1, "d": None}]}
    assert not any("<s>" in one for one in strings(text.protect(value)))


def test_a_tokenizer_without_control_tokens_changes_nothing():
    text = chat_text([], "anything")
    assert text.to_encode(text.protect("anything")) == "anything"
