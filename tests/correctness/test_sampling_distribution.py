"""Draws against a float64 oracle: what can be drawn, how often, and independently of what.

Every test of chance has a probability of 1e-6 to fail by chance; seeds are fixed.
"""

import numpy as np
import pytest
import torch

from tests.correctness.oracle import distribution
from tests.correctness.rows import ReferenceCalls, random_logits, sequence
from tests.correctness.sizes import sizes
from tests.sequence_factory import choose

CI = {"vocabulary": 500, "draws": 4_000}
FULL = {"vocabulary": 49_152, "draws": 20_000}
ROWS = 200
SURE = 64
"""Draws expected of an id, above which missing it has a probability of e^-64."""

CONFIGS = [
    {"temperature": 0.7},
    {"temperature": 3.0},
    {"top_n_sigma": 1.0},
    {"top_h": 0.6},
    {"top_k": 1},
    {"top_k": 40},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.05},
    {"typical_p": 0.8},
    {"epsilon_cutoff": 0.002},
    {"eta_cutoff": 0.01},
    {"temperature": 1.4, "top_k": 100, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 0.8, "top_p": 0.97, "typical_p": 0.9, "epsilon_cutoff": 0.001},
    {"top_h": 0.9, "top_k": 30, "eta_cutoff": 0.005},
    {"temperature": 2.0, "top_n_sigma": 1.5, "top_p": 0.9},
]


def draws(
    logits: torch.Tensor, count: int, config: dict, mode: str = "counter", first_seed: int = 0
) -> np.ndarray:
    """One token for each of so many adjacent seeds."""
    options = {"top_k": 0, **config, "do_sample": True, "seed_mode": mode}
    size = logits.shape[-1]
    tokens = []
    for start in range(first_seed, first_seed + count, ROWS):
        sequences = [sequence(size, seed=start + row, **options) for row in range(ROWS)]
        tokens += [c.token_id for c in choose(logits.expand(ROWS, -1), sequences)]
    return np.array(tokens)


def uniforms(tokens: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Turns draws into numbers that are uniform if the draws follow `probs`."""
    below = np.concatenate([[0.0], probs.cumsum()[:-1]])
    share = np.random.default_rng(1).random(len(tokens))
    return below[tokens] + share * probs[tokens]


def chi_square_excess(observed: np.ndarray, expected: np.ndarray) -> float:
    """Returns chi-square in standard deviations of its cube root (Wilson and Hilferty)."""
    large = expected >= 5
    seen = np.append(observed[large], observed[~large].sum())
    hoped = np.append(expected[large], expected[~large].sum())
    seen, hoped = seen[hoped > 0], hoped[hoped > 0]
    if len(hoped) < 2:
        return 0.0
    degrees = len(hoped) - 1
    statistic = ((seen - hoped) ** 2 / hoped).sum()
    spread = 2 / (9 * degrees)
    return float((np.cbrt(statistic / degrees) - (1 - spread)) / np.sqrt(spread))


def assert_uniform(values: np.ndarray) -> None:
    """Kolmogorov and Smirnov, alpha = 1e-6."""
    ordered = np.sort(values)
    ranks = np.arange(len(values) + 1) / len(values)
    distance = max((ranks[1:] - ordered).max(), (ordered - ranks[:-1]).max())
    assert distance < np.sqrt(-np.log(1e-6 / 2) / 2 / len(values))


def assert_uncorrelated(values: np.ndarray) -> None:
    """Lag 1, five standard deviations: probability below 1e-6."""
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / np.sqrt(len(values))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(config))
@sizes("size", CI, FULL)
def test_draws_of_adjacent_seeds_follow_the_distribution(
    config, size, monkeypatch, record_property
):
    vocabulary, count = size["vocabulary"], size["draws"]
    logits = random_logits(3, vocabulary, scale=2.5)
    probs = distribution(logits[0].numpy(), config)
    tolerance = vocabulary * 2.0**-24
    loosest = distribution(logits[0].numpy(), config, tolerance) > 0
    strictest = distribution(logits[0].numpy(), config, -tolerance) > 0
    reference = ReferenceCalls(monkeypatch)
    tokens = draws(logits, count, config)

    observed = np.bincount(tokens, minlength=vocabulary)
    kept = int((probs > 0).sum())
    record_property("ids kept", kept)
    record_property("rows left to the reference", reference.count)
    print(f"{config}: {kept} ids kept, {reference.count} of {count} rows left to the reference")
    assert kept > 1 or config == {"top_k": 1}
    assert not observed[~loosest].any()
    assert (observed[strictest & (probs * count >= SURE)] > 0).all()
    assert chi_square_excess(observed, probs * count) < 4.76  # probability 1e-6
    assert_uniform(uniforms(tokens, probs))
    assert_uncorrelated(uniforms(tokens, probs))


@pytest.mark.parametrize("mode", ["counter", "torch"])
@sizes("count", 2_000, 20_000)
def test_successive_draws_of_a_sequence_are_uniform_and_uncorrelated(count, mode):
    logits = random_logits(4, 300)
    probs = distribution(logits[0].numpy(), {"top_p": 0.9})
    seq = sequence(
        300, seed=11, max_new_tokens=count + 1, do_sample=True, top_k=0, top_p=0.9, seed_mode=mode
    )
    for _ in range(count):
        seq.token_ids.append(choose(logits, [seq])[0].token_id)
    tokens = np.array(seq.token_ids[3:])
    assert_uniform(uniforms(tokens, probs))
    assert_uncorrelated(uniforms(tokens, probs))


@pytest.mark.parametrize("mode", ["counter", "torch"])
@sizes("vocabulary", 50, 1_500)
def test_every_id_of_the_vocabulary_can_be_drawn(vocabulary, mode):
    logits = torch.zeros(1, vocabulary)
    tokens = draws(logits, SURE * vocabulary, {}, mode)
    observed = np.bincount(tokens, minlength=vocabulary)
    assert (observed > 0).all()
    assert chi_square_excess(observed, np.full(vocabulary, float(SURE))) < 4.76


def test_common_configurations_are_decided_without_the_reference(monkeypatch):
    """Otherwise the tests above would compare the reference with itself."""
    logits = random_logits(5, 49_152, scale=2.0, kind="bfloat16")
    logits[0, :40] += 9.0  # as peaked as a language model is
    reference = ReferenceCalls(monkeypatch)
    for config in CONFIGS:
        draws(logits, ROWS, config)
    draws(logits, ROWS, {})
    assert reference.count <= 0.01 * ROWS * (len(CONFIGS) + 1)
