"""Seeds of single sequences."""

from hypothesis import given
from hypothesis import strategies as st

from model_service.front.checks.rows import random_seed, sequence_seed

seeds = st.integers(0, 2**63 - 1)


@given(seeds)
def test_the_first_sequence_has_the_seed_of_its_call(seed):
    assert sequence_seed(seed, 0, 0) == seed


@given(seeds, st.integers(0, 10**6), st.integers(0, 1000))
def test_every_seed_can_be_sent_again(seed, prompt_index, sequence_index):
    assert 0 <= sequence_seed(seed, prompt_index, sequence_index) < 2**63


@given(seeds)
def test_sequences_of_one_call_have_different_seeds(seed):
    derived = {sequence_seed(seed, p, s) for p in range(16) for s in range(16)}
    assert len(derived) == 256


def test_derived_seeds_never_change_between_versions():
    # Computed with the reference implementation of SplitMix64's finalizer.
    assert sequence_seed(7, 0, 1) == reference(7, 0, 1)
    assert sequence_seed(2**63 - 1, 3, 2) == reference(2**63 - 1, 3, 2)


def reference(seed: int, prompt_index: int, sequence_index: int) -> int:
    import numpy as np

    def finalize(z):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    with np.errstate(over="ignore"):
        gamma = np.uint64(0x9E3779B97F4A7C15)
        mixed = finalize(np.uint64(seed) + gamma * np.uint64(prompt_index + 1))
        mixed = finalize(mixed + gamma * np.uint64(sequence_index + 1))
    return int(mixed) & (2**63 - 1)


def test_random_seeds_differ_and_are_in_range():
    drawn = {random_seed() for _ in range(100)}
    assert len(drawn) == 100
    assert all(0 <= seed < 2**63 for seed in drawn)
