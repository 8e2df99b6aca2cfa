import numpy as np
import pytest
import torch

from model_service.engine.sampling import random


def splitmix64(state: int) -> int:
    """The published step, in plain integers."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def uniforms(seeds, positions, ids) -> np.ndarray:
    """Inverts the Gumbel transform: u = exp(-exp(-g))."""
    noise = random.gumbel(random.keys(seeds, positions), torch.tensor(ids).expand(len(seeds), -1))
    return torch.exp(-torch.exp(-noise)).numpy()


def test_the_first_output_of_splitmix64_is_the_published_one():
    # From seed 0 (Vigna's splitmix64.c).
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert int(random._mix(torch.tensor([0]))) & ((1 << 64) - 1) == 0xE220A8397B1DCDAF


def test_noise_is_the_hash_of_its_three_counters():
    seed, position, token_id = (1 << 62) + 12345, 77, 49151
    state = splitmix64(splitmix64(seed) ^ position)
    bits = splitmix64(state ^ splitmix64(token_id)) >> 12
    expected = -np.log(-np.log((bits + 0.5) * 2.0**-52))
    got = random.gumbel(random.keys([seed], [position]), torch.tensor([[token_id]]))
    assert got.item() == expected


def test_noise_does_not_depend_on_the_other_rows_or_candidates():
    seeds, positions = list(range(8)), list(range(3, 11))
    ids = torch.arange(100).expand(8, -1)
    together = random.gumbel(random.keys(seeds, positions), ids)
    alone = random.gumbel(random.keys(seeds[5:6], positions[5:6]), ids[5:6, 40:41])
    assert together[5, 40] == alone[0, 0]


def test_uniforms_are_uniform_over_tokens():
    values = uniforms([7], [3], list(range(200_000)))[0]
    counts, _ = np.histogram(values, bins=64, range=(0, 1))
    expected = len(values) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 130  # chi-square, 63 degrees: p ~ 1e-6


def test_adjacent_seeds_positions_and_tokens_are_independent():
    for axis in ("seed", "position", "token"):
        counters = {"seed": [5] * 20_000, "position": [9] * 20_000}
        ids = torch.full((20_000, 1), 11)
        if axis == "token":
            ids = torch.arange(20_000)[:, None]
        else:
            counters[axis] = list(range(20_000))
        keys = random.keys(counters["seed"], counters["position"])
        noise = random.gumbel(keys, ids)[:, 0].numpy()
        correlation = np.corrcoef(noise[:-1], noise[1:])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(noise)), axis


def test_swapping_seed_and_position_gives_other_noise():
    assert uniforms([3], [5], [1]) != uniforms([5], [3], [1])


@pytest.mark.parametrize("threshold", [-5.0, -1.0, 0.0, 2.0, 8.0, 20.0, 40.0])
def test_ids_with_loud_noise_are_found_and_hardly_any_other(threshold):
    size = 100_000
    for key in random.keys(list(range(5)), [7] * 5).tolist():
        noise = random.gumbel(torch.tensor([key]), torch.arange(size)[None])[0].numpy()
        found = random.louder(key, size, threshold)
        assert set(np.flatnonzero(noise >= threshold)) <= set(found)
        assert (noise[found] < threshold).sum() <= 1


def test_noise_is_finite_for_the_lowest_and_the_highest_hash(monkeypatch):
    for bits in (0, -1):  # all zeros, all ones
        monkeypatch.setattr(random, "_mix", lambda x, bits=bits: torch.full_like(x, bits))
        noise = random.gumbel(torch.tensor([1]), torch.tensor([[1]]))
        assert noise.isfinite().all()
