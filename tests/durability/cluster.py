"""Two tokenizer and two model replicas on one PostgreSQL, which can be killed at any time."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lockstep.v1 import model_admin_service_pb2, model_admin_service_pb2_grpc

from tests.ports import free_port
from tests.services import ROOT

START_TIMEOUT_S = 120.0


@dataclass
class Replica:
    """One service that keeps its ports over its deaths.

    Attributes:
        module: `tokenizer_service` or `model_service`.
        flags: its settings beside the ports.
        log: file of its log.
    """

    module: str
    flags: tuple[str, ...]
    log: Path
    port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    deaths: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"localhost:{self.port}"

    def start(self) -> None:
        """Starts it and does not wait."""
        ports = (f"--port={self.port}", f"--health-port={self.health_port}", "--metrics-port=0")
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *ports, *self.flags],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=sink,
            )

    def wait(self) -> None:
        """Waits until it is ready to serve."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with grpc.insecure_channel(f"localhost:{self.health_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            while True:
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()[-2000:]
                try:
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                    if answer.status == serving:
                        return
                except grpc.RpcError:
                    pass
                assert time.monotonic() < deadline, self.log.read_text()[-2000:]
                time.sleep(0.05)

    def kill(self) -> None:
        """Ends it as a failing machine does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.deaths += 1

    def stop(self) -> None:
        """Ends it as an operator does."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


@dataclass
class Cluster:
    """The replicas; model replica `n` follows tokenizer replica `n`."""

    tokenizers: list[Replica]
    models: list[Replica]

    @property
    def all(self) -> list[Replica]:
        """Every replica."""
        return [*self.tokenizers, *self.models]

    def kill_one(self, dice: random.Random) -> Replica:
        """Kills one, starts it again at once, and returns it."""
        victim = dice.choice(self.all)
        victim.kill()
        victim.start()
        return victim

    def vocabulary_states(self) -> list[model_admin_service_pb2.GetVocabularyStateResponse]:
        """Returns what each model replica says about its rows."""
        states = []
        for model in self.models:
            with grpc.insecure_channel(model.address) as channel:
                stub = model_admin_service_pb2_grpc.ModelAdminServiceStub(channel)
                request = model_admin_service_pb2.GetVocabularyStateRequest()
                states.append(stub.GetVocabularyState(request, timeout=60, wait_for_ready=True))
        return states


@contextmanager
def running_cluster(checkpoint: Path, store: str, folder: Path) -> Iterator[Cluster]:
    """Runs all four and waits until they are ready."""
    model = f"--model={checkpoint}"
    tokenizers = [
        Replica("tokenizer_service", (model, f"--store={store}"), folder / f"tokenizer-{n}.log")
        for n in range(2)
    ]
    models = [
        Replica(
            "model_service",
            (model, f"--tokenizer-address={tokenizer.address}", "--dtype=fp32", "--threads=1"),
            folder / f"model-{n}.log",
        )
        for n, tokenizer in enumerate(tokenizers)
    ]
    cluster = Cluster(tokenizers, models)
    try:
        for replica in cluster.all:
            replica.start()
        for replica in cluster.all:
            replica.wait()
        yield cluster
    finally:
        for replica in cluster.all:
            replica.stop()
