"""Every mistake on the list gets one sentence that says what is wrong: the reviewed one."""

import builtins
import re

import pytest

from lockstep_client import exceptions
from tests.integration.mistakes.mistakes import FILE, parse, told

LIST = parse(FILE.read_text())


@pytest.fixture(scope="module")
def tell(services):
    return told(services)


def test_there_are_a_hundred_mistakes_and_more():
    assert len(LIST) >= 100


@pytest.mark.parametrize("mistake", LIST)
def test_a_mistake_is_told_as_the_list_has_it(tell, mistake):
    assert tell(mistake) == LIST[mistake]


def test_who_gave_one_text_or_row_is_told_of_no_list():
    one = r"(list\()?ls\.(generate|stream|distribution|perplexity|tokenizer\.\w+)\((?!.*\[\[)[^\[]"
    told = [LIST[mistake] for mistake in LIST if re.match(one, mistake)]
    assert len(told) > 50
    assert [
        each for each in told if re.search(r"(prompt|text|row|conversation)s\[|row \d", each)
    ] == []


def test_no_mistake_is_told_in_the_words_of_insides():
    names = {told.partition(": ")[0] for told in LIST.values()}
    raw = {name for name in names if isinstance(getattr(builtins, name, None), type)}
    assert raw <= {"KeyError"}  # what a mapping raises, in our words
    assert all(hasattr(exceptions, name) for name in names - raw)
    insides = r"object (is not|has no)|argument type|cannot be interpreted|unpack|must be real"
    assert not [told for told in LIST.values() if re.search(insides, told)]
