"""Counter-based noise: a draw is a pure function of seed, position and token.

Nothing is remembered between draws, so a draw does not depend on batch mates,
slots, restarts, or on whether the server or the client runs the loop.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", 2014) applied to one counter after the other. A token is
drawn with the Gumbel-max trick: the arg-max of score + noise follows
softmax(scores), whichever tokens were left out beforehand.

N: rows, K: candidates.
"""

import torch
from torch import Tensor

NAME = "splitmix64-gumbel"

GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)


def gumbel(seeds: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """Returns standard Gumbel noise, `[N, K]` float64.

    Args:
        seeds: `[N]` int64.
        positions: `[N]` int64, index of the token to draw in its sequence.
        token_ids: `[N, K]` int64, candidates.
    """
    state = _mix(_mix(seeds) ^ positions)  # [N]
    bits = _shift(_mix(state[:, None] ^ _mix(token_ids)), 11)  # [N, K], 53 bits
    uniform = (bits.double() + 0.5) * 2.0**-53  # inside of (0, 1)
    return -torch.log(-torch.log(uniform))


def _mix(x: Tensor) -> Tensor:
    """One step of SplitMix64 from state `x`; int64 wraps as uint64 does."""
    x = x + GOLDEN_GAMMA
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, count: int) -> Tensor:
    """Shifts right without sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)
