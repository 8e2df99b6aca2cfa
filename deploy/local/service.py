"""One service as a child process."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

POLL_S = 0.05
LOG_LINES = 12

_SERVING = health_pb2.HealthCheckResponse.SERVING


class ServiceFailed(Exception):
    """A service ended or did not get ready. The message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens, as it printed at start."""

    host: str
    port: int
    health_port: int
    metrics_port: int

    @property
    def target(self) -> str:
        """The gRPC target, for clients."""
        return f"{self.host}:{self.port}"


class Service:
    """A child process, from its start to the proof that nothing of it is left."""

    def __init__(
        self, module: str, flags: Sequence[str], folder: Path, keeps: Sequence[int] = ()
    ) -> None:
        """Starts the process.

        Args:
            module: the package to run: `tokenizer_service` or `model_service`.
            flags: its flags.
            folder: where its output goes: `<module>.out` and `<module>.log`.
            keeps: file descriptors that stay open for as long as it runs.
        """
        self.module = module
        self.log = folder / f"{module}.log"
        self._out = folder / f"{module}.out"
        with self._out.open("wb") as out, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
                start_new_session=True,
                pass_fds=keeps,
            )
        self._family = {psutil.Process(self._process.pid)}

    def address(self, timeout_s: float) -> Address:
        """Waits until the service listens. It need not be ready.

        Raises:
            ServiceFailed: it ended, or took longer.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for line in self._out.read_text().splitlines(keepends=True):
                if line.endswith("\n") and (event := json.loads(line))["event"] == "listening":
                    fields = ("host", "port", "health_port", "metrics_port")
                    return Address(*(event[name] for name in fields))
            self._pause(deadline, "did not listen")

    def wait_ready(self, address: Address, timeout_s: float) -> None:
        """Waits until the service says that it takes calls.

        Raises:
            ServiceFailed: it ended, or took longer.
        """
        deadline = time.monotonic() + timeout_s
        with grpc.insecure_channel(f"{address.host}:{address.health_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                with contextlib.suppress(grpc.RpcError):
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                    if answer.status == _SERVING:
                        self._remember_children()
                        return
                self._pause(deadline, "did not get ready")

    def check(self) -> None:
        """Checks that the process still runs.

        Raises:
            ServiceFailed: it has ended.
        """
        code = self._process.poll()
        if code is not None:
            raise self._failure(f"ended with exit code {code}")

    def stop(self, timeout_s: float) -> list[int]:
        """Sends SIGTERM, waits, kills what is left, and returns the ids of what had to be killed.

        Descendants count: the front of the model service has the engine as a child.
        """
        self._remember_children()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        return [process.pid for process in alive]

    def _remember_children(self) -> None:
        """Notes the descendants: once their parent is gone, nothing tells whose they were."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family.update(psutil.Process(self._process.pid).children(recursive=True))

    def _alive(self) -> list[psutil.Process]:
        self._process.poll()  # reaps it
        return [process for process in self._family if _is_alive(process)]

    def _pause(self, deadline: float, problem: str) -> None:
        self.check()
        if time.monotonic() > deadline:
            raise self._failure(problem)
        time.sleep(POLL_S)

    def _failure(self, problem: str) -> ServiceFailed:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return ServiceFailed(f"{self.module} {problem}. The end of {self.log}:\n{tail}")


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie does not: it waits for its parent to read its exit code."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
