import tracemalloc
from pathlib import Path

import pytest

from checkpoints import CheckpointError, token_ids

PATH = Path("tiny/tokenizer.json")
WORDS = {f"w{index}": index for index in range(1000)}
PIECES = [[f"w{index}", 0.0] for index in range(1000)]


def added(token_id):
    return [{"id": token_id, "content": "<t>"}]


@pytest.mark.parametrize("token_id", [10**5, 10**8, 2**31, 2**63])
@pytest.mark.parametrize(
    "make",
    [
        lambda token_id: {"model": {"vocab": WORDS | {"far": token_id}}},
        lambda token_id: {"model": {"vocab": WORDS}, "added_tokens": added(token_id)},
        lambda token_id: {"model": {"vocab": PIECES}, "added_tokens": added(token_id)},
    ],
    ids=["a piece", "an added token", "an added token beside a list of pieces"],
)
def test_an_id_far_above_the_number_of_tokens_is_refused_by_name(make, token_id):
    tokenizer = make(token_id)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=rf"tiny/tokenizer.json .* the id {token_id}\."):
        token_ids.check(tokenizer, PATH)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"model": {"vocab": WORDS}, "added_tokens": added(1000)},
        {"model": {"vocab": {word: 2 * index for word, index in WORDS.items()}}},
        {"model": {"vocab": WORDS | {"<reserved>": 66_000}}},
        {"model": {"vocab": PIECES}, "added_tokens": None},
    ],
)
def test_a_vocabulary_may_leave_ids_out(tokenizer):
    token_ids.check(tokenizer, PATH)


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        {"model": []},
        {"model": {"vocab": 5}},
        {"model": {"vocab": {"a": "b"}}, "added_tokens": [5, {}]},
        {"added_tokens": {"id": 2**31}},
    ],
)
def test_what_is_no_tokenizer_is_left_to_the_library(tokenizer):
    token_ids.check(tokenizer, PATH)
