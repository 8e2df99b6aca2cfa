"""Callers that leave in every way that there is, at any moment: nothing of them stays (R4)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
import pytest
from lockstep.v1 import (
    logits_session_service_pb2,
    logits_session_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.faults.raw_http2 import RawCall
from tests.faults.watch import canaries, check_canaries, leaving_nothing, wait_until_idle
from tests.integration.model_process import ragged
from tests.services import Services, running_services

STREAM = "/lockstep.v1.ModelService/GenerateStream"
GENERATE = "/lockstep.v1.ModelService/Generate"
NEW_TOKENS = 200
NUM_CALLERS = 6
EXPECTED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # there was no room: nothing to leave
}
STALL_S = 2.0


def generation(rng: random.Random) -> model_service_pb2.GenerateRequest:
    """Draws a call that lasts, of one prompt or several, plain or with rows of scores."""
    prompts = [
        [rng.randrange(3, 300) for _ in range(rng.randint(1, 20))] for _ in range(rng.randint(1, 4))
    ]
    scores = {"logits": True, "full": True} if rng.random() < 0.3 else None
    beams = rng.choice([1, 1, 1, 3])
    return model_service_pb2.GenerateRequest(
        prompt=ragged(*prompts),
        generation_config={
            "max_new_tokens": NEW_TOKENS,
            "eos_token_ids": {},
            "num_beams": beams,
            "do_sample": beams == 1 and rng.random() < 0.5,
        },
        scores=None if beams > 1 else scores,
        keep_session={"ttl": {"seconds": 1}} if beams == 1 and rng.random() < 0.2 else None,
    )


@dataclass
class Leaver:
    """Makes calls and leaves them.

    Attributes:
        address: the model service.
        forks: reads what `leaving_callers` takes, and prints process ids.
        left: how many calls were left, by the way of leaving.
    """

    address: str
    forks: subprocess.Popen[str]
    left: Counter[str]

    def leave(self, kind: str, seed: int) -> None:
        """Makes a call and leaves it at a random moment."""
        rng = random.Random(seed)
        try:
            getattr(self, f"_{kind}")(rng)
        except grpc.RpcError as error:  # of calls that are read
            if error.code() not in EXPECTED:
                raise
        self.left[kind] += 1

    @contextmanager
    def _channel(self) -> Iterator[grpc.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self.address, options) as channel:
            yield channel

    def _read(self, rng: random.Random, call) -> None:
        for _ in zip(range(rng.randrange(30)), call, strict=False):
            pass

    def _raw(self, rng: random.Random, *, window: int = 2**16 - 1) -> RawCall:
        if rng.random() < 0.3:
            path, request = GENERATE, generation(rng)
        else:
            path, request = STREAM, model_service_pb2.GenerateStreamRequest(request=generation(rng))
        call = RawCall(self.address, path, request.SerializeToString(), window=window)
        time.sleep(rng.uniform(0, 0.2))
        return call

    def _cancel(self, rng: random.Random) -> None:
        with self._channel() as channel:
            request = model_service_pb2.GenerateStreamRequest(request=generation(rng))
            call = model_service_pb2_grpc.ModelServiceStub(channel).GenerateStream(request)
            self._read(rng, call)
            call.cancel()

    def _deadline(self, rng: random.Random) -> None:
        with self._channel() as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            stub.Generate(generation(rng), timeout=rng.uniform(0.001, 0.3))

    def _closed_channel(self, rng: random.Random) -> None:
        with self._channel() as channel:
            request = model_service_pb2.GenerateStreamRequest(request=generation(rng))
            self._read(
                rng, model_service_pb2_grpc.ModelServiceStub(channel).GenerateStream(request)
            )

    def _session(self, rng: random.Random) -> None:
        """Leaves a session open, amid a stream of steps, or amid what it generates."""
        with self._channel() as channel:
            stub = logits_session_service_pb2_grpc.LogitsSessionServiceStub(channel)
            opened = stub.OpenSession(
                logits_session_service_pb2.OpenSessionRequest(
                    prompt=ragged([5, 6]), ttl={"seconds": 1}
                )
            )
            step = logits_session_service_pb2.StepStreamRequest()
            step.step.session_id = opened.session_id
            step.step.rows.add().ids.append(7)
            answers = stub.StepStream(iter([step] * 100))
            self._read(rng, answers)

    def _reset_stream(self, rng: random.Random) -> None:
        call = self._raw(rng)
        call.reset_stream()
        call.close()

    def _reset_connection(self, rng: random.Random) -> None:
        self._raw(rng).reset_connection()

    def _unread(self, rng: random.Random) -> None:
        """Never reads a byte of the answer, longer than the service waits for it."""
        call = self._raw(rng, window=0)
        time.sleep(STALL_S * 1.5)
        call.close()

    def _killed(self, rng: random.Random) -> None:
        """Three calls of a process that is killed; one of two stops for a while before."""
        request = model_service_pb2.GenerateStreamRequest(request=generation(rng))
        calls = [[STREAM, request.SerializeToString().hex()] for _ in range(3)]
        self.forks.stdin.write(json.dumps([self.address, calls]) + "\n")
        self.forks.stdin.flush()
        process = json.loads(self.forks.stdout.readline())
        if rng.random() < 0.5:
            os.kill(process, signal.SIGSTOP)
            time.sleep(rng.uniform(0, STALL_S * 1.5))
        os.kill(process, signal.SIGKILL)


KINDS = (
    "cancel",
    "deadline",
    "closed_channel",
    "session",
    "reset_stream",
    "reset_connection",
    "unread",
    "killed",
)


@contextmanager
def leaver(services: Services) -> Iterator[Leaver]:
    """Yields what leaves; processes that it began are gone afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.leaving_callers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as forks:
        try:
            yield Leaver(services.model.address, forks, Counter())
        finally:
            with suppress(ProcessLookupError):
                os.killpg(forks.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("disconnects")
    flags = ("--stream-stall-timeout-s", str(STALL_S))
    with running_services(make_checkpoint(folder / "tiny"), folder, model_flags=flags) as running:
        yield running


@sizes("num_disconnects", ci=64, full=1000)
def test_nothing_is_left_of_callers_that_leave(services, num_disconnects):
    with leaver(services) as leaves:
        for kind in KINDS:  # until what is made once is made
            leaves.leave(kind, seed=-1)
        wait_until_idle(services.model)
        with leaving_nothing(services.model), canaries(services) as outcome:
            each = {kind: num_disconnects // len(KINDS) for kind in KINDS}
            run(leaves.leave, each)
        check_canaries(outcome)
    print(f"\n{dict(leaves.left)}, {outcome['runs']} runs of canaries")


def run(leave: Callable[[str, int], None], counts: dict[str, int]) -> None:
    """Leaves so often in each way, several at a time; processes one after the other."""
    lots = [(kind, seed) for kind, count in counts.items() for seed in range(count)]
    random.Random(0).shuffle(lots)
    with ThreadPoolExecutor(NUM_CALLERS) as others, ThreadPoolExecutor(1) as processes:
        pools = {"killed": processes}
        for ended in [pools.get(kind, others).submit(leave, kind, seed) for kind, seed in lots]:
            ended.result()
