"""`python -m bench.long_prompts`: what long prompts cost a stream that runs meanwhile.

One stream decodes; then prompts arrive at once. What counts is the time between
its tokens until every prompt has its first token. Cases take turns.
"""

import time
from dataclasses import dataclass, field

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import percentile, spread
from bench.workload import Workload

HEADER = (
    "| prompts | steps | p50 ms | p99 ms | longest ms: median (min to max) | all begun after s |\n"
    "|---|---|---|---|---|---|"
)

# Steps of the stream alone, before the prompts arrive: the engine learns from them.
ALONE_STEPS = 10


@dataclass(slots=True)
class Case:
    """So many prompts at once: the stream's pauses by round, in seconds."""

    prompts: int
    pauses: list[list[float]] = field(default_factory=list)
    begun_s: list[float] = field(default_factory=list)

    def markdown(self) -> str:
        """Returns a line of the table."""
        every = [1000 * pause for pauses in self.pauses for pause in pauses]
        longest = spread([1000 * max(pauses) for pauses in self.pauses], 0)
        steps = spread([len(pauses) for pauses in self.pauses], 0)
        begun = spread(self.begun_s) if self.prompts else ""
        return (
            f"| {self.prompts} | {steps} | {percentile(every, 0.5):.0f} | "
            f"{percentile(every, 0.99):.0f} | {longest} | {begun} |"
        )


def run(engine: LocalEngine, case: Case, prompt_tokens: int, seed: int) -> None:
    """Runs one round of a case, and adds what it measured."""
    workload = Workload(case.prompts, prompt_tokens)
    stream = engine.submit(engine.prompts(Workload(1, 32), seed), greedy(1000))
    while len(engine.tokens[stream][0]) < ALONE_STEPS:
        engine.step()
    arrival = last = time.perf_counter()
    call = engine.submit(engine.prompts(workload, seed), greedy(1)) if case.prompts else None
    pauses: list[float] = []
    while len(pauses) < ALONE_STEPS if call is None else len(engine.tokens[call]) < case.prompts:
        before = len(engine.tokens[stream][0])
        engine.step()
        now = time.perf_counter()
        if len(engine.tokens[stream][0]) > before:
            pauses.append(now - last)
            last = now
    case.pauses.append(pauses)
    case.begun_s.append(time.perf_counter() - arrival)
    engine.cancel(stream)
    engine.drain()


def main() -> None:
    """Reads the arguments, measures and prints the table."""
    parser = command.parser("bench.long_prompts", __doc__, rounds=5)
    parser.add_argument("--prompts", type=int, nargs="+", default=[0, 1, 6])
    parser.add_argument("--prompt-tokens", type=int, default=800)
    parser.add_argument("--budget", type=float, default=0.1, help="seconds of prompts in a step")
    parser.add_argument("--decode-graphs", choices=["auto", "off"], default="auto")
    arguments = command.parse(parser)
    engine = LocalEngine(
        command.folder(arguments),
        command.DTYPES[arguments.dtype],
        arguments.decode_graphs,
        prefill_budget_s=arguments.budget,
    )
    engine.finish_graphs()
    run(engine, Case(1), arguments.prompt_tokens, seed=0)  # the engine learns how long prompts take
    cases = [Case(count) for count in arguments.prompts]
    for seed in range(1, arguments.rounds + 1):
        for case in cases if seed % 2 else reversed(cases):
            run(engine, case, arguments.prompt_tokens, seed)
    print(HEADER)
    for case in cases:
        print(case.markdown())


if __name__ == "__main__":
    main()
