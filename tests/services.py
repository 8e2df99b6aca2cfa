"""The two real services as processes on free ports, for every test that needs them.

`services` runs once per test session, on a tiny checkpoint. A test that stops,
breaks or grows a service starts its own with `running_services`.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from lockstep_client import Lockstep
from tests.checkpoint_factory import make_checkpoint

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0

SERVING = health_pb2.HealthCheckResponse.SERVING

FREE_PORTS = ("--port=0", "--health-port=0", "--metrics-port=0")


@dataclass(frozen=True)
class ServiceProcess:
    """One service in a process of its own.

    Attributes:
        process: the process.
        address: where it serves gRPC.
        health_address: where it serves health.
        metrics_url: where it serves metrics.
        admin_address: where it serves its admins, if not everywhere.
        log: file that its log is written to.
    """

    process: subprocess.Popen[str]
    address: str
    health_address: str
    metrics_url: str
    admin_address: str
    log: Path

    def wait_until_serving(self) -> None:
        """Waits until probes say that it takes calls, which needs no credentials."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with grpc.insecure_channel(self.health_address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            while health.Check(request, timeout=10, wait_for_ready=True).status != SERVING:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < deadline, self.log.read_text()[-2000:]
                time.sleep(0.05)

    def handled(self, method: str, code: str | None = None) -> float:
        """Returns how many calls of a method have ended, with a code or with any."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as page:
            text = page.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "grpc_server_handled_total"
            and sample.labels["grpc_method"] == method
            and code in (None, sample.labels["grpc_code"])
        )

    @contextmanager
    def cancelling(self, method: str, limit_s: float = 5.0) -> Iterator[None]:
        """Expects that one call of a method inside ends as cancelled, not by itself."""
        before = self.handled(method, "CANCELLED"), self.handled(method, "OK")
        yield
        deadline = time.monotonic() + limit_s
        while self.handled(method, "CANCELLED") == before[0]:
            assert self.handled(method, "OK") == before[1], "the call ended by itself"
            assert time.monotonic() < deadline, "the call still runs"
            time.sleep(0.02)


@dataclass(frozen=True)
class Services:
    """A tokenizer service and the model service that follows it.

    Attributes:
        checkpoint: folder of the checkpoint that both serve.
        tokenizer: the tokenizer service.
        model: the model service.
    """

    checkpoint: Path
    tokenizer: ServiceProcess
    model: ServiceProcess

    def client(self, **options: object) -> Lockstep:
        """Returns a client of both, to be closed."""
        return Lockstep(tokenizer=self.tokenizer.address, model=self.model.address, **options)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell the `lockstep` command where they are."""
        return {
            "LOCKSTEP_TOKENIZER": self.tokenizer.address,
            "LOCKSTEP_MODEL": self.model.address,
        }


@contextmanager
def running_process(
    module: str,
    *flags: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
    cwd: Path = ROOT,
) -> Iterator[ServiceProcess]:
    """Runs `python -m module`, waits until it listens, and stops it with SIGTERM.

    Args:
        module: `tokenizer_service` or `model_service`.
        flags: settings, beside free ports.
        folder: where the log goes.
        environment: variables beside those of this process.
        python: the interpreter, of an environment that has the module where `cwd` has not.
        cwd: the folder that it runs in.
    """
    log = folder / f"{module}.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [python, "-m", module, *FREE_PORTS, *flags],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        )
        try:
            yield _listening(process, log)
        finally:
            _stop(process)


@contextmanager
def running_services(
    checkpoint: Path,
    folder: Path,
    *,
    tokenizer_flags: tuple[str, ...] = (),
    model_flags: tuple[str, ...] = (),
    model_environment: Mapping[str, str] | None = None,
) -> Iterator[Services]:
    """Runs both services on a checkpoint and waits until they are ready.

    Args:
        checkpoint: folder of the checkpoint.
        folder: where the vocabulary store and the logs go.
        tokenizer_flags: further settings of the tokenizer service.
        model_flags: further settings of the model service.
        model_environment: variables of the model service beside those of this process.
    """
    with ExitStack() as stack:
        tokenizer = stack.enter_context(
            running_process(
                "tokenizer_service",
                f"--model={checkpoint}",
                f"--store=sqlite:///{folder / 'vocabulary.db'}",
                *tokenizer_flags,
                folder=folder,
            )
        )
        model = stack.enter_context(
            running_process(
                "model_service",
                f"--model={checkpoint}",
                f"--tokenizer-address={tokenizer.address}",
                "--dtype=fp32",
                "--threads=1",
                *model_flags,
                folder=folder,
                environment=model_environment,
            )
        )
        services = Services(checkpoint, tokenizer, model)
        with services.client() as client:
            client.wait_until_ready(START_TIMEOUT_S)
        yield services


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Both services on a tiny Llama. Tests must leave them as they are."""
    folder = tmp_path_factory.mktemp("services")
    checkpoint = make_checkpoint(folder / "tiny-llama", "llama")
    with running_services(checkpoint, folder) as running:
        yield running


def _listening(process: subprocess.Popen[str], log: Path) -> ServiceProcess:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise RuntimeError(f"The service ended before it listened:\n{log.read_text()[-2000:]}")
    event = json.loads(line)
    return ServiceProcess(
        process=process,
        address=f"localhost:{event['port']}",
        health_address=f"localhost:{event['health_port']}",
        metrics_url=f"http://localhost:{event['metrics_port']}/metrics",
        admin_address=f"localhost:{event.get('admin_port', event['port'])}",
        log=log,
    )


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
