"""How many prompt tokens a step takes, and whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_service.engine.schedule.prefill import MIN_CHUNK_TOKENS, PrefillClock, share


def test_the_budget_is_time():
    assert PrefillClock(budget_s=0.1, tokens_per_s=2000).tokens() == 200


def test_there_is_always_some_progress():
    assert PrefillClock(budget_s=0.0).tokens() == MIN_CHUNK_TOKENS


def test_the_clock_learns_from_steps_of_prompts_alone():
    clock = PrefillClock(budget_s=1.0, tokens_per_s=1000)
    for _ in range(30):
        clock.learn(0, 100, 1.0)
    assert clock.tokens() == pytest.approx(100, abs=1)


def test_the_clock_learns_while_others_always_decode():
    """A machine ten times slower than expected: 50 ms for the rows, 10 ms per prompt token."""
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(4, 0, 0.05)
    for _ in range(30):
        num_tokens = clock.tokens()
        clock.learn(5, num_tokens, 0.05 + 0.01 * num_tokens)
    assert clock.tokens() == MIN_CHUNK_TOKENS


def test_the_clock_finds_back_after_a_slow_moment():
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(0, 100, 5.0)
    for _ in range(20):
        clock.learn(0, clock.tokens(), clock.tokens() / 1000)
    assert clock.tokens() == pytest.approx(100, abs=2)


def test_what_cannot_be_told_apart_teaches_nothing():
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    clock.learn(4, 100, 30.0)  # nobody knows how long four rows take
    clock.learn(4, 0, 0.05)
    clock.learn(4, 100, 0.04)  # faster than the rows alone
    assert clock.tokens() == 100


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
    [(1, 1, 100), (8, 3, 100), (2, 3, 150), (1, 4, 400), (1, 31, 400)],
)
def test_more_prompts_than_decoding_rows_get_longer_steps_up_to_a_bound(decoding, prompts, tokens):
    clock = PrefillClock(budget_s=0.1, tokens_per_s=1000)
    assert clock.tokens(decoding, prompts) == tokens
