"""What came out, as a table and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.spread import spread
from bench.workload import Measurement, Workload

HEADER = (
    "| streams | ours tok/s | generate tok/s | ratio: median (min to max) | ours first token ms |\n"
    "|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: the rounds of both contenders, pair by pair."""

    workload: Workload
    ours: Sequence[Measurement]
    theirs: Sequence[Measurement]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs in tokens per second, by round."""
        return [
            one.tokens_per_s / other.tokens_per_s
            for one, other in zip(self.ours, self.theirs, strict=True)
        ]

    def markdown(self) -> str:
        """Returns a line of the table."""
        ours = statistics.median(m.tokens_per_s for m in self.ours)
        theirs = statistics.median(m.tokens_per_s for m in self.theirs)
        first = statistics.median(m.first_token_s for m in self.ours) * 1000
        return (
            f"| {self.workload.streams} | {ours:.1f} | {theirs:.1f} | "
            f"{spread(self.ratios, 2)} | {first:.0f} |"
        )

    def record(self) -> dict[str, object]:
        """Returns the row for a JSON file."""
        return {
            "streams": self.workload.streams,
            "prompt_tokens": self.workload.prompt_tokens,
            "new_tokens": self.workload.new_tokens,
            "ours_tokens_per_s": [m.tokens_per_s for m in self.ours],
            "generate_tokens_per_s": [m.tokens_per_s for m in self.theirs],
            "ratio": statistics.median(self.ratios),
        }
