"""The loop that every worker runs: a line in, a line out; and the clock of a contender's round."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.workload import Measurement


@dataclass(slots=True)
class Round:
    """Prompts to run, and the clock that their tokens are timed by.

    Attributes:
        prompts: ids, by prompt.
        new_tokens: ids to generate for each.
        arrivals_s: when each may be begun, in seconds after `start`, ascending.
    """

    prompts: list[list[int]]
    new_tokens: int
    arrivals_s: list[float]
    _start: float = 0.0
    _token_ids: list[list[int]] = field(default_factory=list)
    _times_s: list[list[float]] = field(default_factory=list)

    def start(self) -> None:
        """Starts the clock."""
        self._token_ids = [[] for _ in self.prompts]
        self._times_s = [[] for _ in self.prompts]
        self._start = time.perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def note(self, index: int, token_ids: list[int]) -> None:
        """Notes new tokens of a prompt, which are there now."""
        self._token_ids[index] += token_ids
        self._times_s[index] += [self.now_s] * len(token_ids)

    def arrived(self, begun: int) -> Iterator[int]:
        """Yields the prompts that have arrived, of those after the first `begun`."""
        for index in range(begun, len(self.prompts)):
            if self.arrivals_s[index] > self.now_s:
                return
            yield index

    def wait_for(self, index: int) -> None:
        """Sleeps until a prompt arrives."""
        time.sleep(max(0.0, self.arrivals_s[index] - self.now_s))

    @property
    def measurement(self) -> Measurement:
        """What was noted."""
        return Measurement(self._token_ids, self._times_s, self.arrivals_s)


def answer(run: Callable[[Round], None]) -> None:
    """Answers rounds until standard input ends.

    Args:
        run: starts the clock of a round, runs its prompts and notes their tokens.
    """

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        this = Round(**request)
        run(this)
        return asdict(this.measurement)

    serve(measure)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers requests until standard input ends. Nothing else reaches standard output.

    The first line says that this process is ready.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
