"""What is measured: how many prompts of how many tokens, and when each new token came."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bench.spread import percentile

# Ids that every vocabulary of a real model has, without control tokens.
FIRST_ID, LAST_ID = 100, 30_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts that run at once, or arrive one after the other.

    Attributes:
        streams: prompts.
        prompt_tokens: ids of each.
        new_tokens: ids generated for each; nothing ends earlier.
        rate: prompts that arrive per second, at random; 0 means all at once.
        vocabulary_size: ids of the model.
    """

    streams: int
    prompt_tokens: int = 128
    new_tokens: int = 64
    rate: float = 0.0
    vocabulary_size: int = LAST_ID + 1

    def prompts(self, seed: int) -> list[list[int]]:
        """Returns the prompts of a round."""
        generator = random.Random(seed)
        return [
            [
                generator.randint(FIRST_ID, LAST_ID) % self.vocabulary_size
                for _ in range(self.prompt_tokens)
            ]
            for _ in range(self.streams)
        ]

    def arrivals_s(self, seed: int) -> list[float]:
        """Returns when each prompt of a round arrives, in seconds: a Poisson process."""
        if not self.rate:
            return [0.0] * self.streams
        generator, now, result = random.Random(seed), 0.0, []
        for _ in range(self.streams):
            now += generator.expovariate(self.rate)
            result.append(now)
        return result


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender's round. Times are seconds since the first prompt was due to be sent.

    Attributes:
        token_ids: new tokens by prompt.
        times_s: when each of them was there, by prompt.
        arrivals_s: when each prompt was due to be sent.
    """

    token_ids: list[list[int]]
    times_s: list[list[float]]
    arrivals_s: list[float] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Until the last token of all."""
        return max(times[-1] for times in self.times_s)

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second over all prompts."""
        return sum(map(len, self.token_ids)) / self.wall_s

    @property
    def first_tokens_s(self) -> list[float]:
        """Time from a prompt's arrival to its first token, by prompt."""
        arrivals = self.arrivals_s or [0.0] * len(self.times_s)
        return [times[0] - due for times, due in zip(self.times_s, arrivals, strict=True)]

    @property
    def begun_s(self) -> float:
        """When every prompt had its first token: the end of prompts, and the start of decoding."""
        return max(times[0] for times in self.times_s)

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens per second once every prompt has its first token."""
        after = sum(time > self.begun_s for times in self.times_s for time in times)
        return after / (self.wall_s - self.begun_s) if after else 0.0

    @property
    def gaps_s(self) -> list[float]:
        """Times between one token of a prompt and its next, of all prompts."""
        return [after - before for times in self.times_s for before, after in pairwise(times)]

    def figures(self) -> dict[str, float]:
        """Returns what a table says of the round, in tokens per second and in milliseconds."""
        result = {
            "tokens_per_s": self.tokens_per_s,
            "decode_tokens_per_s": self.decode_tokens_per_s,
            "begun_ms": 1000 * self.begun_s,
            "first_token_ms": 1000 * statistics.median(self.first_tokens_s),
            "first_token_p99_ms": 1000 * percentile(self.first_tokens_s, 0.99),
        }
        if gaps := self.gaps_s:
            result["gap_p50_ms"] = 1000 * percentile(gaps, 0.5)
            result["gap_p99_ms"] = 1000 * percentile(gaps, 0.99)
        return result


def goodput(measurement: Measurement, first_token_s: float, gap_s: float) -> float:
    """Returns the share of prompts that were served in time.

    Args:
        measurement: of a round.
        first_token_s: most time from a prompt's arrival to its first token.
        gap_s: most time between tokens of a prompt, on average.
    """
    served = [
        first <= first_token_s and (times[-1] - times[0]) <= gap_s * max(len(times) - 1, 1)
        for first, times in zip(measurement.first_tokens_s, measurement.times_s, strict=True)
    ]
    return statistics.mean(served)


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the median of each figure over rounds."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
