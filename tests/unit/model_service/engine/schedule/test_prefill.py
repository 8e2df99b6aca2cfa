"""How many prompt tokens a step takes, and whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_service.engine.schedule.prefill import (
    MIN_ALONE_TOKENS,
    MIN_CHUNK_TOKENS,
    PrefillClock,
    share,
)


def test_the_budget_is_time():
    assert PrefillClock(budget_s=0.1, tokens_per_s=2000).budget() == 200


def test_there_is_always_some_progress():
    assert PrefillClock(budget_s=0.0).budget() == MIN_CHUNK_TOKENS


def test_prompts_alone_have_a_budget_too():
    """Who arrives meanwhile waits for the step."""
    assert PrefillClock(budget_s=0.1, tokens_per_s=2000).budget(0, 1) == 400
    assert PrefillClock(budget_s=0.1, tokens_per_s=10).budget(0, 1) == MIN_ALONE_TOKENS


def test_a_token_that_attends_to_more_counts_as_more():
    clock = PrefillClock(budget_s=0.1, even_context=1000)
    assert clock.work(0, 100) == 105
    assert clock.work(1000, 100) == 205
    assert clock.length(0, 105) == 100
    assert clock.length(1000, 205) == 100
    assert PrefillClock(budget_s=0.1).work(1000, 100) == 100


@given(st.integers(0, 10**5), st.integers(1, 10**4), st.integers(100, 10**5))
def test_the_work_of_a_chunk_is_enough_for_it_and_for_little_more(num_cached, length, even_context):
    clock = PrefillClock(budget_s=0.1, even_context=even_context)
    assert length <= clock.length(num_cached, clock.work(num_cached, length)) <= length + 1


def test_the_clock_learns_from_steps_of_prompts_alone():
    clock = PrefillClock(budget_s=1.0, tokens_per_s=1000)
    for _ in range(30):
        clock.learn(0, 100, 1.0)
    assert clock.budget() == pytest.approx(100, abs=1)


def test_the_clock_learns_while_others_always_decode():
    """A machine ten times slower than expected: 50 ms for the rows, 10 ms per prompt token."""
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(4, 0, 0.05)
    for _ in range(30):
        num_tokens = clock.budget()
        clock.learn(5, num_tokens, 0.05 + 0.01 * num_tokens)
    assert clock.budget() == MIN_CHUNK_TOKENS


def test_the_clock_finds_back_after_a_slow_moment():
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(0, 100, 5.0)
    for _ in range(20):
        clock.learn(0, clock.budget(), clock.budget() / 1000)
    assert clock.budget() == pytest.approx(100, abs=2)


def test_what_cannot_be_told_apart_teaches_nothing():
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(4, 100, 30.0)  # nobody knows how long four rows take
    clock.learn(4, 0, 0.05)
    clock.learn(4, 100, 0.04)  # faster than the rows alone
    assert clock.budget() == 100


def test_half_goes_to_the_oldest_and_the_rest_to_the_shortest():
    assert share([1000, 500, 20], 100) == [50, 30, 20]


def test_one_prompt_takes_all():
    assert share([1000], 100) == [100]


@given(st.lists(st.integers(1, 50), max_size=6), st.integers(1, 100))
def test_nothing_is_wasted_and_nobody_gets_more_than_needed(pending, budget):
    shares = share(pending, budget)
    assert all(0 <= part <= whole for part, whole in zip(shares, pending, strict=True))
    assert sum(shares) == min(budget, sum(pending))
    assert not pending or shares[0] >= min(pending[0], budget / 2)


@pytest.mark.parametrize(
    ("decoding", "prompts", "tokens"),
    [(1, 1, 100), (8, 3, 100), (2, 3, 150), (1, 4, 200), (1, 31, 200)],
)
def test_more_prompts_than_decoding_rows_get_longer_steps_up_to_a_bound(decoding, prompts, tokens):
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    assert clock.budget(decoding, prompts) == tokens
