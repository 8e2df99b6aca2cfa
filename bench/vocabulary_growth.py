"""`python -m bench.vocabulary_growth`: how long `Encode` takes while tokens are added.

A tokenizer service of its own, grown by thousands of tokens beforehand. `Encode` calls
are sent at a fixed rate, whether or not earlier ones have been answered, and a call's
time counts from the moment it was due. Rounds with and without `AddTokens` alternate,
so that whatever else the machine does meets both, and the 99th percentile is that of a
round: a moment in which the machine stood still spoils one of them only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import grpc
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin
from lockstep.v1 import vocabulary_pb2
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from lockstep.v1.vocabulary_admin_service_pb2_grpc import VocabularyAdminServiceStub

TEXT = "The capital of France is Paris, and the capital of Italy is Rome. " * 8
TOKENS_PER_CALL = 64


class Growth:
    """Adds special tokens with names that were not used before."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = VocabularyAdminServiceStub(channel)
        self._num_added = 0

    def add(self, count: int) -> float:
        """Adds tokens as one revision and returns the seconds it took."""
        tokens = []
        for number in range(self._num_added, self._num_added + count):
            token = vocabulary_pb2.AddedToken(content=f"<|tool_{number:06d}|>", special=True)
            tokens.append(admin.TokenToAdd(token=token))
        self._num_added += count
        start = time.perf_counter()
        self._stub.AddTokens(
            admin.AddTokensRequest(tokens=tokens, idempotency_key=str(uuid.uuid4()))
        )
        return time.perf_counter() - start


@contextmanager
def tokenizer_service(model: str) -> Iterator[str]:
    """Runs a tokenizer service with an empty store and yields its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenizer_service", "--model", model]
        command += ["--store", f"sqlite:///{Path(folder) / 'vocabulary.sqlite'}"]
        command += ["--host", "127.0.0.1", "--port", "0", "--health-port", "0"]
        command += ["--metrics-port", "0", "--log-level", "error"]
        command += ["--max-added-tokens", "65536"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_until_ready(stub: TokenizerServiceStub) -> None:
    """Waits while the tokenizer loads."""
    while True:
        try:
            stub.GetTokenizerInfo(pb.GetTokenizerInfoRequest(), wait_for_ready=True, timeout=60)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.1)
        else:
            return


def measure(stub: TokenizerServiceStub, rate: float, seconds: float) -> list[float]:
    """Sends `Encode` calls at a rate and returns the seconds each took."""
    times: list[float] = []
    calls = []
    request = pb.EncodeRequest(items=[pb.TextItem(text=TEXT)])
    start = time.perf_counter()

    def note(due: float) -> Callable[[object], None]:
        return lambda _: times.append(time.perf_counter() - due)

    for index in range(int(rate * seconds)):
        due = start + index / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        call = stub.Encode.future(request)
        call.add_done_callback(note(due))
        calls.append(call)
    for call in calls:
        call.result()
    return times


def grow_during(growth: Growth, rate: float, work: Callable[[], list[float]]) -> list[float]:
    """Runs work while tokens are added one by one at a rate."""
    done = threading.Event()

    def add() -> None:
        while not done.wait(1 / rate):
            growth.add(1)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        return work()
    finally:
        done.set()
        thread.join()


def p99_ms(times: list[float]) -> float:
    """Returns the 99th percentile in milliseconds."""
    return statistics.quantiles(times, n=100)[98] * 1000


def cell(values: list[float]) -> str:
    """Returns the median of rounds with the range of all."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Prints one line of a table per number of tokens added beforehand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--added", type=int, nargs="+", default=[0, 4000, 8000])
    parser.add_argument("--growth-rate", type=float, default=4.0, help="AddTokens per second")
    parser.add_argument("--encode-rate", type=float, default=100.0, help="Encode per second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    print(
        "| added before | p50 ms: idle, growing | p99 ms idle: median (min to max) | growing | "
        "p99 grows by ms | AddTokens ms |\n|---|---|---|---|---|---|"
    )
    with tokenizer_service(options.model) as address, grpc.insecure_channel(address) as channel:
        stub, growth = TokenizerServiceStub(channel), Growth(channel)
        wait_until_ready(stub)
        num_added = 0
        for target in options.added:
            while num_added < target:
                count = min(TOKENS_PER_CALL, target - num_added)
                growth.add(count)
                num_added += count

            def work() -> list[float]:
                return measure(stub, options.encode_rate, options.seconds)

            work()  # warm
            idle: list[list[float]] = []
            growing: list[list[float]] = []
            for _ in range(options.rounds):
                idle.append(work())
                growing.append(grow_during(growth, options.growth_rate, work))
            addition = statistics.median(growth.add(1) for _ in range(5))
            p50 = [statistics.median(chain(*rounds)) * 1000 for rounds in (idle, growing)]
            p99 = [[p99_ms(times) for times in rounds] for rounds in (idle, growing)]
            rise = statistics.median(p99[1]) - statistics.median(p99[0])
            print(
                f"| {target} | {p50[0]:.1f}, {p50[1]:.1f} | {cell(p99[0])} | {cell(p99[1])} | "
                f"{rise:+.1f} | {addition * 1000:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
