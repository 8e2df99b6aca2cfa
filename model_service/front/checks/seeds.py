"""Seeds of single sequences, derived from the seed of their call."""

import secrets

MASK_64 = 2**64 - 1
MAX_SEED = 2**63 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def random_seed() -> int:
    """Returns an unpredictable seed, in [0, 2^63)."""
    return secrets.randbits(63)


def sequence_seed(seed: int, prompt_index: int, sequence_index: int) -> int:
    """Derives the seed of one sequence of a call.

    The first sequence of the first prompt has the call's own seed. Any other has
    `mix(mix(seed + g * (prompt_index + 1)) + g * (sequence_index + 1)) mod 2^63`
    with `mix` and `g` of SplitMix64. Sent alone with the result as its seed, a
    sequence is first of its call and draws the same tokens.

    Args:
        seed: the call's seed, [0, 2^63).
        prompt_index: index of the prompt, from 0.
        sequence_index: index among the sequences of the prompt, from 0.

    Returns:
        A seed in [0, 2^63).
    """
    if prompt_index == 0 and sequence_index == 0:
        return seed
    mixed = _mix(seed + _GOLDEN_GAMMA * (prompt_index + 1))
    return _mix(mixed + _GOLDEN_GAMMA * (sequence_index + 1)) & MAX_SEED


def _mix(value: int) -> int:
    """Applies the finalizer of SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA
    2014; the constants are variant 13 of Stafford.
    """
    value &= MASK_64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK_64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK_64
    return value ^ (value >> 31)
