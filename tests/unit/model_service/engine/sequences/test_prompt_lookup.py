"""Guesses from what a sequence has already."""

import time

import pytest

from model_service.engine.sequences.prompt_lookup import PromptLookup


def propose(ids: list[int], longest: int = 3, count: int = 4) -> tuple[int, ...]:
    return PromptLookup().propose(ids, longest, count)


@pytest.mark.parametrize(
    ("ids", "guesses"),
    [
        ([1, 2, 3, 4, 5, 6, 2], (3, 4, 5, 6)),
        ([1, 2, 9, 8, 1, 3, 7, 6, 1, 2], (9, 8, 1, 3)),
        ([1, 2, 9, 3, 2, 8, 3, 2], (8, 3, 2, 8)),
        ([1, 2, 3], ()),
        ([1], ()),
    ],
    ids=["one token", "the longer run", "the newer of two", "nothing", "too short"],
)
def test_what_followed_the_newest_tokens_before_is_guessed(ids, guesses):
    assert propose(ids) == guesses


def test_no_more_tokens_are_compared_than_allowed():
    ids = [1, 2, 7, 7, 3, 2, 8, 8, 1, 2]
    assert propose(ids, longest=2, count=1) == (7,)
    assert propose(ids, longest=1, count=1) == (8,)


def test_a_period_goes_on_beyond_the_end():
    assert propose([5, 5, 5], count=4) == (5, 5, 5, 5)
    assert propose([1, 2, 1, 2], count=5) == (1, 2, 1, 2, 1)


def test_tokens_that_came_since_are_known():
    lookup, ids = PromptLookup(), [1, 2, 3]
    assert lookup.propose(ids, 2, 1) == ()
    ids += [4, 2]
    assert lookup.propose(ids, 2, 2) == (3, 4)


def test_what_most_often_followed_is_guessed():
    assert propose([1, 2, 7, 3, 1, 2, 7, 4, 1, 2, 8, 5, 1, 2], count=1) == (7,)


def test_wrong_guesses_are_made_ever_more_rarely_until_some_are_right():
    lookup, ids, made = PromptLookup(), [7, 1], []
    for step in range(400):  # always followed by something new
        ids += [1000 + step, 7]
        made.append(len(lookup.propose(ids, 1, 8)))
    assert made[:1] > made[10:11], "fewer at once"
    assert sum(map(bool, made[-200:])) < 40, "and not in every step"
    for _ in range(200):
        guesses = lookup.propose(ids, 1, 8)
        ids += [*guesses, 7]
    assert len(guesses) == 8


def test_more_are_guessed_the_longer_the_run_that_was_found():
    shared = list(range(10, 20))
    lengths = [
        len(propose([*shared, 1, 2, 3, 4, *range(30, 50), *shared[-n:]], 8, 32))
        for n in (1, 2, 3, 4)
    ]
    assert lengths == sorted(set(lengths))


def test_a_guess_costs_the_same_in_a_long_context():
    lookup, ids = PromptLookup(), [1] * 100_000
    lookup.propose(ids, 2, 1)
    start = time.monotonic()
    for _ in range(100):
        ids.append(1)
        assert lookup.propose(ids, 32, 8) == (1,) * 8
    assert time.monotonic() - start < 0.5
