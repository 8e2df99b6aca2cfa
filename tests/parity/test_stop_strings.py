"""When a stop string ends a sequence: ours against Hugging Face's `StopStringCriteria`.

Theirs looks at the whole sequence, ours at generated tokens; here everything is generated.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast, StopStringCriteria

import checkpoints
from model_service.engine.sequences.stop_strings import completed
from tests.tokenizer_factory import make_tokenizer_folder
from tokenizer_service.text import loading, tokenizer_files
from tokenizer_service.text.incremental import DecodeOptions

ALL_TEXT = DecodeOptions(skip_special_tokens=False)
TEXTS = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "Grüße aus München: naïve café, señor, Straße. 東京 and Москва 🙂🙃 are cities.",
    "stop stopper unstoppable st op s t o p <|im_end|>aaaaaa\n\n\n### Question:",
)


class Pair:
    """The same tokenizer twice. Short to print, which a failing example does."""

    def __init__(self, folder, theirs):
        self.ours = loading.load(tokenizer_files.read(folder), "tiny")
        self.theirs = theirs
        self.table = dict(enumerate(self.ours.table.token_bytes))

    def steps(self, ids: list[int], stop_strings: list[str]) -> list[tuple[bool, bool]]:
        """Says after each token, ours and theirs, whether it completes a stop string."""
        criteria = StopStringCriteria(self.theirs, stop_strings)
        return [
            (
                completed(stop_strings, ids[end - 1], ids[: end - 1][::-1], self.table) is not None,
                bool(criteria(torch.tensor([ids[:end]]), None)),
            )
            for end in range(1, len(ids) + 1)
        ]


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback", "unigram"])
def pair(request, tmp_path_factory):
    folder = make_tokenizer_folder(tmp_path_factory.mktemp(request.param), request.param)
    return Pair(folder, PreTrainedTokenizerFast.from_pretrained(folder))


@pytest.fixture(scope="module")
def default_pair():
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="tokenizer").folder
    return Pair(folder, AutoTokenizer.from_pretrained(folder))


def pieces(data: st.DataObject, text: str) -> list[str]:
    """Draws parts of a text, so that there is something to find, and a text that is in none."""
    drawn = ["\x00"]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(0, len(text) - 1)))
        drawn.append(text[start : start + data.draw(st.integers(1, 12))])
    return [piece for piece in drawn if piece and "\N{REPLACEMENT CHARACTER}" not in piece]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_ids_end_where_hugging_faces_end(pair, data):
    ids = data.draw(st.lists(st.integers(0, pair.ours.size - 1), min_size=1, max_size=25))
    stop_strings = pieces(data, pair.ours.decode(ids, ALL_TEXT))
    for ours, theirs in pair.steps(ids, stop_strings):
        assert ours == theirs


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_texts_end_where_hugging_faces_end(pair, data):
    text = data.draw(st.sampled_from(TEXTS) | st.text(max_size=30))
    ids = pair.theirs(text, add_special_tokens=False)["input_ids"]
    for ours, theirs in pair.steps(ids, pieces(data, text)):
        assert ours == theirs


def test_these_examples_do_find_stop_strings(pair):
    ids = pair.theirs(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert (True, True) in pair.steps(ids, ["France is P"])


@pytest.mark.default_model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", TEXTS, ids=["ascii", "multi-byte", "stops"])
def test_texts_of_the_default_model_end_where_hugging_faces_end(default_pair, text):
    ids = default_pair.theirs(text)["input_ids"]
    found = 0
    for size in (1, 3, 8):
        stop_strings = [text[start : start + size] for start in range(5, len(text), 17)][:8]
        steps = default_pair.steps(ids, stop_strings)
        assert all(ours == theirs for ours, theirs in steps)
        found += sum(ours for ours, _ in steps)
    assert found > 10
