"""The two real services as processes on free ports, for every test that needs them.

`services` runs once per test session, on a tiny checkpoint. A test that stops,
breaks or grows a service starts its own with `running_services`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lockstep_client import Lockstep
from tests.checkpoint_factory import make_checkpoint

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

FREE_PORTS = ("--port=0", "--health-port=0", "--metrics-port=0")


@dataclass(frozen=True)
class ServiceProcess:
    """One service in a process of its own.

    Attributes:
        process: the process.
        address: where it serves gRPC.
        health_address: where it serves health.
        metrics_url: where it serves metrics.
        log: file that its log is written to.
    """

    process: subprocess.Popen[str]
    address: str
    health_address: str
    metrics_url: str
    log: Path


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
    module: str, *flags: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ServiceProcess]:
    """Runs `python -m module`, waits until it listens, and stops it with SIGTERM.

    Args:
        module: `tokenizer_service` or `model_service`.
        flags: settings, beside free ports.
        folder: where the log goes.
        environment: variables beside those of this process.
    """
    log = folder / f"{module}.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *FREE_PORTS, *flags],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
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
) -> Iterator[Services]:
    """Runs both services on a checkpoint and waits until they are ready.

    Args:
        checkpoint: folder of the checkpoint.
        folder: where the vocabulary store and the logs go.
        tokenizer_flags: further settings of the tokenizer service.
        model_flags: further settings of the model service.
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
