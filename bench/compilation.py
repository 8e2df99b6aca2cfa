"""`python -m bench.compilation`: what compiling in the background costs streams that run meanwhile.

An engine with an empty cache decodes, and its compiling process is halted and
let go in turn, a batch of prompts each: pairs share the machine's moods. A step
counts with what the engine does for its graphs behind it.
"""

import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import percentile, spread
from bench.workload import Workload
from model_service.engine.run.decode_graph import compilation, decode_graphs

HEADER = (
    "| steps | halted ms | compiling ms | ratio: median (min to max) | p99 ms | longest ms "
    "| compiler's processors |\n|---|---|---|---|---|---|---|"
)


@dataclass(slots=True)
class Window:
    """The steps of one batch of prompts.

    Attributes:
        steps: their durations in seconds, by whether they ran compiled.
        compiler: processors that the compiling process had meanwhile.
    """

    steps: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    compiler: float = 0.0

    def median(self, compiled: bool) -> float:
        """Returns the middle of its steps of one kind."""
        return statistics.median(self.steps[compiled])


@dataclass(frozen=True, slots=True)
class CompilerProcess:
    """The engine's compiling process, and the group of the processes that it has started."""

    pid: int

    @classmethod
    def find(cls) -> "CompilerProcess | None":
        """Finds it among the children of this process."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            if compilation.MODULE.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                return cls(int(child))
        return None

    def let(self, run: bool) -> None:
        """Lets the group go on, or halts it."""
        os.killpg(self.pid, signal.SIGCONT if run else signal.SIGSTOP)

    def cpu_s(self) -> float:
        """Returns the processor time that the group has had."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                values = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(values[2]) == self.pid:
                ticks += sum(map(int, values[11:15]))  # its own and that of ended children
        return ticks / os.sysconf("SC_CLK_TCK")


def decode(engine: LocalEngine, workload: Workload, seed: int) -> Window:
    """Runs a batch of prompts, and takes the time of the steps in which all decode."""
    window = Window()
    engine.submit(engine.prompts(workload, seed), greedy(workload.new_tokens))
    while True:
        start = time.perf_counter()
        stats = engine.step()
        engine.graphs.advance()
        if stats is None:
            return window
        if stats.decode_rows == workload.streams and not stats.prefill_tokens:
            window.steps[stats.compiled].append(time.perf_counter() - start)


def pairs(engine: LocalEngine, workload: Workload, rounds: int) -> list[tuple[Window, Window]]:
    """Decodes with the compiling process halted and running, in turn, until it has ended.

    Args:
        engine: one whose graphs are not compiled.
        workload: what runs meanwhile.
        rounds: how many pairs at most.

    Returns:
        Halted and running, pair by pair.
    """
    result: list[tuple[Window, Window]] = []
    seed = 0
    while engine.graphs.is_preparing and CompilerProcess.find() is None:
        decode(engine, workload, seed)  # a service waits a moment before it compiles, too
    compiler = CompilerProcess.find()
    if compiler is None:
        return []
    for seed in range(rounds):
        windows = {}
        for runs in (False, True) if seed % 2 else (True, False):
            compiler.let(runs)
            before, start = compiler.cpu_s(), time.perf_counter()
            windows[runs] = decode(engine, workload, seed)
            if CompilerProcess.find() is None:
                return result
            windows[runs].compiler = (compiler.cpu_s() - before) / (time.perf_counter() - start)
        result.append((windows[False], windows[True]))
    return result


def markdown(measured: list[tuple[Window, Window]], compiled: bool) -> str | None:
    """Returns a line about steps of one kind, or None if no pair has both."""
    kept = [pair for pair in measured if all(window.steps[compiled] for window in pair)]
    if not kept:
        return None
    halted, running = (
        [1000 * window.median(compiled) for window in side] for side in zip(*kept, strict=True)
    )
    ratios = [two / one for one, two in zip(halted, running, strict=True)]
    every = [
        [1000 * step for window in side for step in window.steps[compiled]]
        for side in zip(*kept, strict=True)
    ]
    tails = " to ".join(f"{percentile(steps, 0.99):.0f}" for steps in every)
    longest = " to ".join(f"{max(steps):.0f}" for steps in every)
    shares = spread([running.compiler for _, running in kept], 2)
    return (
        f"| {'compiled' if compiled else 'eager'} | {spread(halted)} | {spread(running)} | "
        f"{spread(ratios, 2)} | {tails} | {longest} | {shares} |"
    )


def main() -> None:
    """Reads the arguments, measures and prints the table."""
    parser = command.parser("bench.compilation", __doc__, rounds=12)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--start-delay", type=float, default=decode_graphs.START_DELAY_S)
    parser.add_argument("--each", action="store_true", help="also print every pair")
    arguments = command.parse(parser)
    folder = command.folder(arguments)
    workload = Workload(arguments.streams, arguments.prompt_tokens, arguments.new_tokens)
    decode_graphs.START_DELAY_S = arguments.start_delay
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as cache:
        os.environ["LOCKSTEP_CACHE"] = cache
        engine = LocalEngine(folder, command.DTYPES[arguments.dtype], "auto")
        try:
            measured = pairs(engine, workload, arguments.rounds)
        finally:
            engine.graphs.close()
    print(
        f"{len(measured)} pairs of {arguments.streams} streams; p99 and longest: halted to ", end=""
    )
    print("compiling\n" + HEADER)
    for pair in measured if arguments.each else []:
        print(markdown([pair], False) or markdown([pair], True))
    for compiled in (False, True):
        if line := markdown(measured, compiled):
            print(line)


if __name__ == "__main__":
    main()
