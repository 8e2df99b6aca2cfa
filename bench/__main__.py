"""`python -m bench`: ours through gRPC from another process, against `generate` in process."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import checkpoints
from bench.contender import Contender
from bench.report import HEADER, Row
from bench.workload import Workload

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@contextmanager
def model_service(model: str, dtype: str, threads: int) -> Iterator[str]:
    """Runs a model service and yields its address."""
    command = [sys.executable, "-m", "model_service", "--model", model, "--dtype", dtype]
    command += ["--threads", str(threads), "--host", "127.0.0.1"]
    command += ["--port", "0", "--health-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.terminate()
        process.wait(timeout=90)


def measure(
    ours: Contender, theirs: Contender, workload: Workload, rounds: int, warmups: int
) -> Row:
    """Lets both contenders run the same prompts in turn, and who goes first in turn too."""
    pairs = []
    for index in range(warmups + rounds):
        prompts = workload.prompts(seed=index)
        order = (ours, theirs) if index % 2 else (theirs, ours)
        results = {c.name: c.run(prompts, workload.new_tokens) for c in order}
        pairs.append((results[ours.name], results[theirs.name]))
    kept = pairs[warmups:]
    return Row(workload, [pair[0] for pair in kept], [pair[1] for pair in kept])


def main() -> None:
    """Reads the arguments, measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", default=checkpoints.DEFAULT_MODEL)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmups", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    folder = checkpoints.resolve(arguments.model, need="model").folder
    rows = []
    print(
        f"{arguments.model}, {arguments.dtype}, prompt {arguments.prompt_tokens}, "
        f"{arguments.new_tokens} new tokens, {arguments.threads} threads\n\n{HEADER}"
    )
    with (
        model_service(str(folder), arguments.dtype, arguments.threads) as address,
        Contender("ours", "bench.peers.lockstep", address, threads=1) as ours,
        Contender(
            "generate",
            "bench.peers.generate",
            str(folder),
            DTYPES[arguments.dtype],
            threads=arguments.threads,
        ) as theirs,
    ):
        for streams in arguments.streams:
            workload = Workload(streams, arguments.prompt_tokens, arguments.new_tokens)
            row = measure(ours, theirs, workload, arguments.rounds, arguments.warmups)
            rows.append(row)
            print(row.markdown(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([row.record() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
