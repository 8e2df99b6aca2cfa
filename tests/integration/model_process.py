"""A model service in a process of its own, as an operator starts it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

START_TIMEOUT_S = 90
ROOT = Path(__file__).parents[2]


@dataclass
class ModelProcess:
    """The process, its ports and stubs to its services."""

    process: subprocess.Popen
    ports: dict[str, int]
    errors: Path
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.ports['port']}", options)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.sessions = logits_session_service_pb2_grpc.LogitsSessionServiceStub(self.channel)
        self.info = model_info_service_pb2_grpc.ModelInfoServiceStub(self.channel)
        self.admin = model_admin_service_pb2_grpc.ModelAdminServiceStub(self.channel)

    def health(self, service: str = "") -> str:
        """Asks for the health of a service."""
        address = f"127.0.0.1:{self.ports['health_port']}"
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def wait_for_health(self, status: str) -> None:
        """Waits until the service says so, or has ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.health() != status:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        """Returns what it wrote to stderr."""
        return self.errors.read_text()

    def events(self) -> list[dict]:
        """Returns its log lines."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def engine_pid(self) -> int:
        """Returns the process id of its engine."""
        return next(e["pid"] for e in self.events() if e["event"] == "engine_started")


@contextmanager
def model_process(
    model: Path | str, folder: Path, *flags: str, ready: bool = True
) -> Iterator[ModelProcess]:
    """Starts a service on free ports and stops it.

    Args:
        model: what `--model` names.
        folder: where its log goes.
        flags: further flags.
        ready: whether to wait until it serves.
    """
    command = [sys.executable, "-m", "model_service", "--model", str(model), "--threads", "1"]
    command += ["--port", "0", "--health-port", "0", "--metrics-port", "0", *flags]
    errors = folder / "model_service.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_MODEL_")}
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    with process:
        try:
            line = process.stdout.readline()
            assert line, errors.read_text()
            service = ModelProcess(process, json.loads(line), errors)
            if ready:
                service.wait_for_health("SERVING")
            with service.channel:
                yield service
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


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
