"""Parts in which every contender runs the same prompts: streams, prompts alone, arrivals."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial

from bench.contender import Contender
from bench.parts.part import Figure, Part, Side
from bench.workload import Measurement, Workload, goodput

ARRIVALS_S = 6.0

FIRST_TOKEN_S, GAP_S = 1.0, 0.1
"""What counts as served in time: the first token, and the others on average."""


class Generation(Part):
    """Workloads by case, run by every contender."""

    @property
    @abstractmethod
    def workloads(self) -> dict[str, Workload]:
        """The cases."""

    @abstractmethod
    def figures_of(self, workload: Workload, measurement: Measurement) -> dict[str, float]:
        """Returns the figures of a round."""

    @property
    def cases(self) -> Sequence[str]:
        return list(self.workloads)

    def sides(self) -> Mapping[str, Side]:
        return {
            name: partial(self._measure, contender)
            for name, contender in self._setup.contenders.items()
        }

    def _measure(self, contender: Contender, case: str, seed: int) -> dict[str, float]:
        workload = self.workloads[case]
        return self.figures_of(workload, contender.run(workload, seed))


class Streams(Generation):
    """Prompts that begin together and generate."""

    name = "streams"
    title = "Streams: prompts that begin together, greedy"
    case_title = "streams"
    figures = (
        Figure("tokens_per_s", "tok/s"),
        Figure("decode_tokens_per_s", "decode tok/s"),
        Figure("begun_ms", "all begun ms", 0, more_is_better=False),
        Figure("first_token_ms", "first token ms", 0, more_is_better=False),
        Figure("gap_p50_ms", "gap p50 ms", more_is_better=False),
        Figure("gap_p99_ms", "gap p99 ms", more_is_better=False),
    )

    @property
    def workloads(self) -> dict[str, Workload]:
        return {str(count): self._setup.workload(count) for count in self._setup.streams}

    def figures_of(self, workload: Workload, measurement: Measurement) -> dict[str, float]:
        return measurement.figures()


class Prefill(Generation):
    """Prompts of which one token is asked."""

    name = "prefill"
    title = "Prompts alone: one new token"
    case_title = "prompts"
    figures = (Figure("prompt_tokens_per_s", "prompt tok/s", 0),)

    @property
    def workloads(self) -> dict[str, Workload]:
        make, counts = self._setup.workload, self._setup.streams
        alone = [make(1, prompt_tokens=tokens, new_tokens=1) for tokens in self._setup.prefill]
        together = [make(count, new_tokens=1) for count in counts if count > 1]
        return {f"{w.streams} x {w.prompt_tokens}": w for w in (*alone, *together)}

    def figures_of(self, workload: Workload, measurement: Measurement) -> dict[str, float]:
        count = workload.streams * workload.prompt_tokens
        return {"prompt_tokens_per_s": count / measurement.wall_s}


class Arrivals(Generation):
    """Prompts that arrive at random, whether or not earlier ones are done."""

    name = "arrivals"
    title = (
        "Arrivals: prompts at random times, half as many new tokens; in time: first token "
        f"within {FIRST_TOKEN_S:g} s, the others {1000 * GAP_S:g} ms apart on average"
    )
    case_title = "prompts/s"
    figures = (
        Figure("goodput_per_s", "in time per s", 2),
        Figure("first_token_ms", "first token ms", 0, more_is_better=False),
        Figure("first_token_p99_ms", "first token p99 ms", 0, more_is_better=False),
        Figure("gap_p99_ms", "gap p99 ms", more_is_better=False),
    )
    rates = (1.0, 2.0, 4.0, 8.0)

    @property
    def workloads(self) -> dict[str, Workload]:
        make, new_tokens = self._setup.workload, self._setup.new_tokens // 2
        return {
            f"{rate:g}": make(round(ARRIVALS_S * rate), new_tokens=new_tokens, rate=rate)
            for rate in self.rates
        }

    def sides(self) -> Mapping[str, Side]:
        return {
            name: side for name, side in super().sides().items() if not name.startswith("generate")
        }

    def figures_of(self, workload: Workload, measurement: Measurement) -> dict[str, float]:
        share = goodput(measurement, FIRST_TOKEN_S, GAP_S)
        return {**measurement.figures(), "goodput_per_s": share * workload.rate}
