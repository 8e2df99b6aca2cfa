"""`python -m bench`: ours through gRPC from another process, against `generate` in process."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from lockstep.v1 import model_info_service_pb2
from lockstep.v1.model_info_service_pb2_grpc import ModelInfoServiceStub

import checkpoints
from bench import step_split
from bench.command import DTYPES
from bench.contender import ENVIRONMENT, Contender
from bench.report import HEADER, Row
from bench.workload import Workload


@contextmanager
def model_service(model: str, dtype: str, threads: int, decode_graphs: str) -> Iterator[str]:
    """Runs a model service and yields its address, once its steps run as they will for long."""
    command = [sys.executable, "-m", "model_service", "--model", model, "--dtype", dtype]
    command += ["--threads", str(threads), "--host", "127.0.0.1", "--decode-graphs", decode_graphs]
    command += [
        "--tokenizer-address",
        "none",
        "--port",
        "0",
        "--health-port",
        "0",
        "--metrics-port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        wait_for_graphs(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=90)


def wait_for_graphs(address: str) -> None:
    """Waits until the service has compiled what it can, and says what came of it."""
    with grpc.insecure_channel(address) as channel:
        info = ModelInfoServiceStub(channel)
        request = model_info_service_pb2.GetModelInfoRequest()
        states = model_info_service_pb2.DecodeGraphState
        compiling = model_info_service_pb2.DECODE_GRAPH_STATE_COMPILING
        response = None
        while response is None or response.decode_graph_state == compiling:
            time.sleep(0.5)
            try:
                response = info.GetModelInfo(request)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:  # it loads the model
                    raise
    state = states.Name(response.decode_graph_state).removeprefix("DECODE_GRAPH_STATE_").lower()
    print(f"compiled steps: {state} {response.decode_graph_reason}\n", flush=True)


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
    parser.add_argument("--decode-graphs", choices=["auto", "off"], default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    folder = checkpoints.resolve(arguments.model, need="model").folder
    rows = []
    print(
        f"{arguments.model}, {arguments.dtype}, prompt {arguments.prompt_tokens}, "
        f"{arguments.new_tokens} new tokens, {arguments.threads} threads"
    )
    with (
        model_service(
            str(folder), arguments.dtype, arguments.threads, arguments.decode_graphs
        ) as address,
        Contender("ours", "bench.peers.lockstep", address, threads=1) as ours,
        Contender(
            "generate",
            "bench.peers.generate",
            str(folder),
            DTYPES[arguments.dtype],
            threads=arguments.threads,
        ) as theirs,
    ):
        print(HEADER, flush=True)
        for streams in arguments.streams:
            workload = Workload(streams, arguments.prompt_tokens, arguments.new_tokens)
            row = measure(ours, theirs, workload, arguments.rounds, arguments.warmups)
            rows.append(row)
            print(row.markdown(), flush=True)
    print(f"\n{step_split.HEADER}", flush=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "bench.step_split"),
            *(str(folder), DTYPES[arguments.dtype], arguments.decode_graphs),
            *map(str, (arguments.prompt_tokens, *arguments.streams)),
        ],
        env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(arguments.threads)},
        check=True,
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([row.record() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
