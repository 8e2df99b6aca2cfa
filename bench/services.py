"""Our services as they are deployed: processes of their own, asked over loopback."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import grpc
from lockstep.v1 import model_info_service_pb2 as info_pb
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1.model_info_service_pb2_grpc import ModelInfoServiceStub
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub

from bench.contender import ROOT, environment

ANY_PORT = ("--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--metrics-port", "0")
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs.

    Attributes:
        address: of its gRPC port.
        metrics_address: of its metrics.
        pid: of its front.
    """

    address: str
    metrics_address: str
    pid: int


@contextmanager
def model_service(
    model: str,
    threads: int,
    arguments: Sequence[str] = (),
    *,
    module: str = "model_service",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Service]:
    """Runs a model service and yields it once its steps run as they will for long.

    Args:
        model: folder of the checkpoint.
        threads: that the engine computes with.
        arguments: further flags.
        module: what runs instead of the service as it is.
        variables: further ones of its environment.

    Raises:
        RuntimeError: it has ended; its own log says why.
    """
    command = [sys.executable, "-m", module, "--model", model, *ANY_PORT]
    command += ["--threads", str(threads), "--tokenizer-address", "none", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**environment(threads), **variables},
    )
    try:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline() or "{}")
        if not ports:
            raise RuntimeError(f"The model service ended with exit code {process.wait()}.")
        address, metrics_address = (f"127.0.0.1:{ports[n]}" for n in ("port", "metrics_port"))
        _wait_until_loaded(process, address)
        if "off" not in arguments:
            _wait_for_graphs(process, address)
        yield Service(address, metrics_address, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=90)


@contextmanager
def tokenizer_service(model: str) -> Iterator[str]:
    """Runs a tokenizer service with an empty store and yields its address, once it answers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenizer_service", "--model", model, *ANY_PORT]
        command += ["--store", f"sqlite:///{Path(folder) / 'vocabulary.sqlite'}"]
        command += ["--log-level", "error"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
            with grpc.insecure_channel(address) as channel:
                stub = TokenizerServiceStub(channel)
                while not _answers(stub):
                    time.sleep(POLL_S)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(stub: TokenizerServiceStub) -> bool:
    try:
        stub.GetTokenizerInfo(tokenizer_pb.GetTokenizerInfoRequest())
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def _wait_until_loaded(process: subprocess.Popen[str], address: str) -> None:
    while _info(address) is None:
        _check_runs(process)
        time.sleep(POLL_S)


def _check_runs(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"The model service ended with exit code {process.returncode}.")


def _wait_for_graphs(process: subprocess.Popen[str], address: str) -> None:
    """Waits until the service has compiled what it can, and says what came of it."""
    not_yet = (info_pb.DECODE_GRAPH_STATE_OFF, info_pb.DECODE_GRAPH_STATE_COMPILING)
    while (info := _info(address)) is None or info.decode_graph_state in not_yet:
        _check_runs(process)
        time.sleep(POLL_S)
    state = info_pb.DecodeGraphState.Name(info.decode_graph_state)
    name = state.removeprefix("DECODE_GRAPH_STATE_").lower()
    print(f"compiled steps: {name} {info.decode_graph_reason}", flush=True)


def _info(address: str) -> info_pb.GetModelInfoResponse | None:
    """Asks the service about itself; None while it loads the model."""
    with grpc.insecure_channel(address) as channel:
        try:
            return ModelInfoServiceStub(channel).GetModelInfo(info_pb.GetModelInfoRequest())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return None
