"""Counter-based noise: a draw is a pure function of seed, position and token.

Nothing is remembered between draws, so a draw does not depend on batch mates,
slots, restarts, or on whether the server or the client runs the loop.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", 2014) applied to one counter after the other. A token is
drawn with the Gumbel-max trick: the arg-max of score + noise follows
softmax(scores), whichever tokens were left out beforehand.

N: rows, K: candidates.
"""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NAME = "splitmix64-gumbel"

GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)


def keys(seeds: list[int], positions: list[int]) -> Tensor:
    """Returns the key of each draw, `[N]` int64.

    Args:
        seeds: of the sequences, [0, 2^63).
        positions: index of the token to draw in its sequence.
    """
    return _mix(_mix(torch.tensor(seeds)) ^ torch.tensor(positions))


def gumbel(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Returns standard Gumbel noise, `[N, K]` float64.

    Args:
        keys: of the draws, `[N]` int64.
        token_ids: `[N, K]` int64, candidates.
    """
    bits = _shift(_mix(keys[:, None] ^ _mix(token_ids)), 12)  # [N, K], 52 bits
    # With one bit more the highest sums would round to 1, whose noise is infinite.
    uniform = (bits.double() + 0.5) * 2.0**-52  # exact, inside of (0, 1)
    return -torch.log(-torch.log(uniform))


def louder(key: int, size: int, threshold: float) -> NDArray[np.int64]:
    """Finds the ids whose noise may be at least `threshold`.

    Ten times cheaper than the noise of all ids: the threshold is turned into one
    of the hash, so that nothing but the hash is computed.

    Args:
        key: of the draw.
        size: number of ids, from 0 on.
        threshold: least noise.

    Returns:
        `[M]` int64, ascending: all ids whose noise is at least `threshold`, and
        at most a few whose noise is just below.
    """
    x = _hashes(size) ^ np.uint64(key % 2**64)
    x += np.uint64(GOLDEN_GAMMA % 2**64)
    x ^= x >> np.uint64(30)
    x *= np.uint64(MIX_1 % 2**64)
    x ^= x >> np.uint64(27)
    x *= np.uint64(MIX_2 % 2**64)
    # The last step of the mix, `x ^ (x >> 31)`, leaves the 31 highest bits as they are.
    share = -math.expm1(-math.exp(min(-threshold, 700.0)))  # of uniforms above
    lowest = max(0, int((1.0 - share * (1.0 + 1e-9)) * 2.0**64) - 2**34)
    return np.flatnonzero(x >= np.uint64(lowest >> 33 << 33))


@functools.lru_cache(maxsize=4)
def _hashes(size: int) -> NDArray[np.uint64]:
    """Returns what every id is mixed in with, `[size]`."""
    return _mix(torch.arange(size)).numpy().view(np.uint64)


def _mix(x: Tensor) -> Tensor:
    """One step of SplitMix64 from state `x`; int64 wraps as uint64 does."""
    x = x + GOLDEN_GAMMA
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, count: int) -> Tensor:
    """Shifts right without sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)
