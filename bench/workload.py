"""What is measured: how many prompts of how many tokens, and how many new ones."""

import random
from dataclasses import dataclass

# Ids that every vocabulary of a real model has, without control tokens.
FIRST_ID, LAST_ID = 100, 30_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts that run at once.

    Attributes:
        streams: prompts.
        prompt_tokens: ids of each.
        new_tokens: ids generated for each; nothing ends earlier.
    """

    streams: int
    prompt_tokens: int = 128
    new_tokens: int = 64

    def prompts(self, seed: int) -> list[list[int]]:
        """Returns the prompts of a round."""
        generator = random.Random(seed)
        return [
            [generator.randint(FIRST_ID, LAST_ID) for _ in range(self.prompt_tokens)]
            for _ in range(self.streams)
        ]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender's round. Durations in seconds.

    Attributes:
        wall_s: from the first request to the last token of all.
        first_token_s: median time to the first token; `wall_s` where only the end is seen.
        token_ids: new tokens by prompt.
    """

    wall_s: float
    first_token_s: float
    token_ids: list[list[int]]

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second over all prompts."""
        return sum(map(len, self.token_ids)) / self.wall_s
