"""Keywords that take one of a few values say which, before any call."""

import numpy as np
import pytest

from lockstep_client import NewToken, Padded, ScoreSelection
from lockstep_client._requests import model, tokenizer, vocabulary
from lockstep_client._values import batch as batches

MASK = np.ones((1, 1), np.int64)

# Every keyword with a few values: how it is given, and one value that there is.
KEYWORDS = {
    "positions": (lambda value: ScoreSelection(logits=True, positions=value), "last"),
    "dtype": (lambda value: ScoreSelection(logits=True, dtype=value), "bfloat16"),
    "seed_mode": (lambda value: model.generate([[1]], {"seed_mode": value}), "torch"),
    "early_stopping": (lambda value: model.generate([[1]], {"early_stopping": value}), "never"),
    "padding": (lambda value: tokenizer.encode("a", {"padding": value}), "longest"),
    "padding_side": (lambda value: tokenizer.encode("a", {"padding_side": value}), "left"),
    "truncation_side": (lambda value: tokenizer.encode("a", {"truncation_side": value}), "left"),
    "return_offsets": (lambda value: tokenizer.encode("a", {"return_offsets": value}), "utf16"),
    "return_tensors": (batches.check_return_tensors, "pt"),
    "role": (lambda value: vocabulary.set_special_tokens({value: 1}, {}), "pad"),
    "role of a new token": (lambda value: NewToken("a", role=value).to_message(), "pad"),
    "more_roles": (lambda value: NewToken("a", more_roles=[value]).to_message(), "pad"),
    "initialization": (lambda value: NewToken("a", initialization=value).to_message(), "mean"),
    "side of a rectangle": (lambda value: Padded(MASK, MASK, MASK, value, 0).to_message(), "left"),
}


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("value", ["first", "unspecified", "UNSPECIFIED", 7])
def test_a_value_that_there_is_not_is_refused_with_those_that_there_are(keyword, value):
    give, known = KEYWORDS[keyword]
    with pytest.raises(ValueError, match=f"is one of .*'{known}'.*, not {value!r}"):
        give(value)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_value_that_there_is_is_taken(keyword):
    give, known = KEYWORDS[keyword]
    give(known)
