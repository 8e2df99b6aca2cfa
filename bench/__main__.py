"""`python -m bench`: ours through gRPC, against what else runs on this machine, round by round.

Everybody does the same in turn, and who begins changes: what counts is the ratio within a round.
Rounds are kept, and further calls add to them: a long run can be made in pieces.
"""

import argparse
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import checkpoints
from bench import plots, report
from bench.contender import ROOT
from bench.parts import PARTS
from bench.parts.part import Part, Side
from bench.peers import lockstep
from bench.run_folder import Record, RunFolder, commit
from bench.setup import Setup, installed_peers
from checkpoints import smollm2


class Judge:
    """Measures parts into a run folder, for as long as there is time."""

    def __init__(self, run: RunFolder, rounds: int, seconds: float) -> None:
        """Starts the clock.

        Args:
            run: where rounds are kept.
            rounds: that every side shall have in the end.
            seconds: after which no round is begun; 0 means as long as it takes.
        """
        self._run = run
        self._rounds = rounds
        self._ends = time.monotonic() + (seconds or float("inf"))
        self._commit = commit()

    def measure(self, part: Part) -> bool:
        """Runs the rounds of a part that are missing. Returns whether none is left."""
        sides = part.sides()
        missing = {case: self._missing(part, case, list(sides)) for case in part.cases}
        took_s = {case: self._round(part, sides, case, -1) for case, n in missing.items() if n}
        while any(missing.values()):
            for case, count in missing.items():
                if not count:
                    continue
                if time.monotonic() + took_s[case] > self._ends:
                    return False
                took_s[case] = self._round(part, sides, case, self._run.next_round(part.name, case))
                missing[case] -= 1
        return True

    def _missing(self, part: Part, case: str, sides: list[str]) -> int:
        done = min(len(self._run.rounds_of(part.name, case, side)) for side in sides)
        return max(0, self._rounds - done)

    def _round(self, part: Part, sides: Mapping[str, Side], case: str, number: int) -> float:
        """Runs a round and keeps it, unless its number is negative. Returns how long it took."""
        start = time.monotonic()
        ours = next(iter(sides))
        order = list(sides) if number % 2 else list(sides)[::-1]
        figures = {side: sides[side](case, number) for side in order}
        if number >= 0:
            self._run.add(
                [
                    Record(
                        part.name,
                        case,
                        side,
                        "" if side == ours else ours,
                        number,
                        figures[side],
                        self._commit,
                    )
                    for side in sides
                ]
            )
        return time.monotonic() - start


def gguf_of(model: str) -> Path | None:
    """Returns the GGUF file that a model is made from, if it is."""
    if model == checkpoints.DEFAULT_MODEL:
        return smollm2.gguf()
    return Path(model) if model.endswith(".gguf") else None


def numbers(text: str) -> list[int]:
    """Reads numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def names(text: str) -> list[str]:
    """Reads names with commas between them."""
    return [name for name in text.split(",") if name]


def main() -> None:
    """Reads the arguments, measures, and writes the tables."""
    parts = {part.name: part for part in PARTS}
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=checkpoints.DEFAULT_MODEL)
    parser.add_argument("--precision", choices=lockstep.PRECISIONS, default="bf16")
    parser.add_argument(
        "--peers", type=names, default=installed_peers(), help="default: all that are installed"
    )
    parser.add_argument("--only", type=names, default=list(parts), help=", ".join(parts))
    parser.add_argument("--streams", type=numbers, default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prefill", type=numbers, default=[128, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5, help="in the run folder, in the end")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no round after these")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--decode-graphs", choices=["auto", "off"], default="auto")
    parser.add_argument("--run", type=Path, help="folder of the run; default: one per commit")
    parser.add_argument(
        "--prepare", action="store_true", help="only export, compile and start everything, once"
    )
    arguments = parser.parse_args()
    run = RunFolder(arguments.run or ROOT / ".lockstep" / "bench" / commit())
    judge = Judge(run, 0 if arguments.prepare else arguments.rounds, arguments.seconds)
    folder = checkpoints.resolve(arguments.model, need="model").folder
    print(f"{arguments.model}, {arguments.precision}, {arguments.threads} threads, to {run.path}")
    complete = True
    with ExitStack() as stack:
        setup = Setup(
            model=folder,
            gguf=gguf_of(arguments.model),
            precision=arguments.precision,
            peers=arguments.peers,
            threads=arguments.threads,
            streams=arguments.streams,
            prompt_tokens=arguments.prompt_tokens,
            new_tokens=arguments.new_tokens,
            prefill=arguments.prefill,
            decode_graphs=arguments.decode_graphs,
            stack=stack,
        )
        for name in arguments.only:
            complete = complete and judge.measure(parts[name](setup))
    tables = [report.markdown(part, run) for part in PARTS if run.of(part.name)]
    print("\n" + "\n".join(tables))
    (run.path / "report.md").write_text("\n".join(tables))
    (run.path / "report.json").write_text(report.summary(PARTS, run))
    plots.draw(run)
    if not complete:
        print("Rounds are missing: the same command adds them.")


if __name__ == "__main__":
    main()
