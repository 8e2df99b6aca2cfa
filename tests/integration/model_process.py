"""A model service in a process of its own, with stubs for what it serves."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from lockstep.v1 import (
    logits_session_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    model_info_service_pb2_grpc,
    model_service_pb2_grpc,
    tokens_pb2,
)

from tests.services import START_TIMEOUT_S, ServiceProcess, running_process


@dataclass
class ModelProcess:
    """The process and stubs to its services."""

    service: ServiceProcess
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(self.service.address, options)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.sessions = logits_session_service_pb2_grpc.LogitsSessionServiceStub(self.channel)
        self.info = model_info_service_pb2_grpc.ModelInfoServiceStub(self.channel)
        self.admin = model_admin_service_pb2_grpc.ModelAdminServiceStub(self.channel)

    @property
    def process(self) -> subprocess.Popen[str]:
        """The front's process."""
        return self.service.process

    def health(self, service: str = "") -> str:
        """Asks for the health of a service."""
        with grpc.insecure_channel(self.service.health_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            response = stub.Check(request, timeout=10, wait_for_ready=True)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def wait_for_health(self, status: str) -> None:
        """Waits until the service says so. Fails when it has ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._health_or_none() != status:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _health_or_none(self) -> str | None:
        """Returns the health, or None while a busy machine has not started the service."""
        try:
            return self.health()
        except grpc.RpcError:
            return None

    def log(self) -> str:
        """Returns what it wrote to stderr."""
        return self.service.log.read_text()

    def events(self, name: str) -> list[dict]:
        """Returns the lines of its log about one kind of event."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    def engine_pid(self) -> int:
        """Returns the process id of its engine."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (started := self.events("engine_started")):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return started[0]["pid"]


@contextmanager
def model_process(
    model: Path | str,
    folder: Path,
    *flags: str,
    ready: bool = True,
    module: str = "model_service",
    environment: Mapping[str, str] | None = None,
) -> Iterator[ModelProcess]:
    """Starts a service on free ports and stops it.

    Args:
        model: what `--model` names.
        folder: where its log goes.
        flags: further flags.
        ready: whether to wait until it serves.
        module: what is run.
        environment: variables beside those of this process.
    """
    arguments = ["--model", str(model), "--threads", "1", *flags]
    with running_process(module, *arguments, folder=folder, environment=environment) as service:
        process = ModelProcess(service)
        with process.channel:
            if ready:
                process.wait_for_health("SERVING")
            yield process


def counting_process(
    model: Path, folder: Path, *flags: str, ready: bool = True, step_s: float = 0.002
) -> AbstractContextManager[ModelProcess]:
    """Starts a service whose engine counts instead of thinking, see `tests/fakes`.

    Args:
        model: the checkpoint, for its name and tokenizer.
        folder: where its log goes.
        flags: further flags.
        ready: whether to wait until it serves.
        step_s: how long a step takes at least.
    """
    return model_process(
        model,
        folder,
        *flags,
        ready=ready,
        module="tests.fakes.counting_server",
        environment={"COUNTING_STEP_S": str(step_s)},
    )


@dataclass
class Refusal:
    """A failed call as a client reads it."""

    code: grpc.StatusCode
    message: str
    info: ErrorInfo
    fields: list[str]
    retry: bool

    @property
    def reason(self) -> str:
        """The reason, without prefix."""
        return self.info.reason


def refusal(error: grpc.RpcError) -> Refusal:
    """Reads the details of a failed call."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error.code()} {error.details()}"
    info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details), status
    assert info.domain == "lockstep.dev"
    has_retry = any(detail.Unpack(retry) for detail in status.details)
    for detail in status.details:
        detail.Unpack(request)
    fields = [violation.field for violation in request.field_violations]
    return Refusal(error.code(), error.details(), info, fields, has_retry)


def ragged(*rows: list[int]) -> tokens_pb2.PromptBatch:
    """Builds prompts without padding."""
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    return tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))
