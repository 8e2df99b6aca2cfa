"""`python -m bench.compiled_steps`: decoding steps as compiled graphs, against eager ones.

Two engines in one process run the same prompts and take turns step by step.
"""

import statistics
from dataclasses import dataclass, field

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import spread
from bench.workload import Workload

HEADER = (
    "| streams | eager ms | compiled ms | ratio: median (min to max) | same rows |\n"
    "|---|---|---|---|---|"
)


@dataclass(slots=True)
class Line:
    """One workload: the median step of every round, in seconds, and whose tokens were equal."""

    streams: int
    eager: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)
    num_equal: int = 0
    num_rows: int = 0

    def markdown(self) -> str:
        """Returns a line of the table."""
        ratios = [one / two for one, two in zip(self.eager, self.compiled, strict=True)]
        eager, compiled = (
            spread([1000 * step for step in steps]) for steps in (self.eager, self.compiled)
        )
        return (
            f"| {self.streams} | {eager} | {compiled} | {spread(ratios, 2)} | "
            f"{self.num_equal} of {self.num_rows} |"
        )


def measure(eager: LocalEngine, compiled: LocalEngine, workload: Workload, rounds: int) -> Line:
    """Lets both engines decode the same prompts in turn, step by step.

    Raises:
        RuntimeError: a step that should have run compiled did not, or the other way round; or there
            was none in which all prompts decode.
    """
    line = Line(workload.streams)
    for seed in range(rounds):
        prompts, config = eager.prompts(workload, seed), greedy(workload.new_tokens)
        calls = [engine.submit(prompts, config) for engine in (eager, compiled)]
        steps: tuple[list[float], list[float]] = ([], [])
        is_running = True
        while is_running:
            is_running = False
            for engine, durations in zip((eager, compiled), steps, strict=True):
                stats = engine.step()
                is_running |= stats is not None
                if stats is None or stats.prefill_tokens or stats.decode_rows < workload.streams:
                    continue
                if stats.compiled != (engine is compiled):
                    raise RuntimeError("Not every step of decoding rows takes the path it should.")
                durations.append(stats.duration_s)
        if not all(steps):
            raise RuntimeError("The first prompts end before the last begin: ask for more tokens.")
        line.eager.append(statistics.median(steps[0]))
        line.compiled.append(statistics.median(steps[1]))
        ours, theirs = compiled.rows(calls[1]), eager.rows(calls[0])
        line.num_rows += len(ours)
        line.num_equal += sum(a == b for a, b in zip(ours, theirs, strict=True))
    return line


def main() -> None:
    """Reads the arguments, measures and prints the table."""
    parser = command.parser("bench.compiled_steps", __doc__, rounds=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    arguments = command.parse(parser)
    folder, dtype = command.folder(arguments), command.DTYPES[arguments.dtype]
    compiled = LocalEngine(folder, dtype, "auto")
    compiled.finish_graphs()
    eager = LocalEngine(folder, dtype)
    print(HEADER, flush=True)
    for streams in arguments.streams:
        workload = Workload(streams, arguments.prompt_tokens, arguments.new_tokens)
        print(measure(eager, compiled, workload, arguments.rounds).markdown(), flush=True)


if __name__ == "__main__":
    main()
