"""A real server around whatever servicer a test brings, and a program that runs one.

`python -m tests.integration.rpc_probe` serves until it is stopped, for tests that
need a process: `GetTokenizerArtifact` streams ten chunks, 50 ms apart, `Encode`
takes 5 ms, and `WatchVocabulary`, `GetVocabulary`, `EncodeStream` and `Pad` never
end. `GetVocabulary` from the id `FLOOD` writes as fast as it is read.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import grpc
import structlog
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services
from prometheus_client import CollectorRegistry
from pydantic_settings import SettingsConfigDict

from rpc import json_lines, metrics, program, span_collector
from rpc.server import Server
from rpc.settings import ServerSettings
from rpc.tracing import Tracer

SERVICE = "lockstep.v1.TokenizerService"
CHUNKS = 10
FLOOD = 7


class ProbeSettings(ServerSettings):
    """Settings of the probe: all ports free."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_PROBE_")


@asynccontextmanager
async def running(
    servicer: services.TokenizerServiceServicer,
    *,
    ready: bool = True,
    capture: bool = True,
    tracer: Tracer | None = None,
    **settings: object,
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    """Yields the server and a channel to it.

    Args:
        servicer: what it serves.
        ready: whether it takes calls from the start.
        capture: whether to keep its log lines out of the test's output.
        tracer: makes spans.
        settings: other than the defaults.
    """
    with structlog.testing.capture_logs() if capture else nullcontext():
        server = Server(ProbeSettings(**settings), CollectorRegistry(), [SERVICE], tracer)
        services.add_TokenizerServiceServicer_to_server(servicer, server.grpc)
        try:
            await server.start()
            server.set_ready(ready)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield server, channel
        finally:
            await server.stop()


@asynccontextmanager
async def process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict]]:
    """Runs the probe as a program; yields it and the ports it printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.rpc_probe", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            line = json.loads(await child.stdout.readline())
        assert line["event"] == "listening"
        yield child, line
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


class Failure:
    """What a caller sees of a status, unpacked."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details()
        trailing = dict(error.trailing_metadata() or ())
        self.pushback_ms = trailing.get("grpc-retry-pushback-ms")
        self.trailing = trailing
        status = rpc_status.from_call(error)
        self.details = list(status.details) if status else []
        info = self._unpack(ErrorInfo)
        self.reason = info.reason if info else None
        self.metadata = dict(info.metadata) if info else {}
        self.retry = self._unpack(RetryInfo)
        self.bad_request = self._unpack(BadRequest)

    def _unpack(self, kind: type) -> object:
        detail = kind()
        return next((detail for each in self.details if each.Unpack(detail)), None)


@asynccontextmanager
async def health_of(port: int) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    """Yields a stub of the health service on a port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def failure(call: object) -> Failure:
    """Awaits a call, or reads a stream to its end, that must fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return Failure(error)
    raise AssertionError("The call succeeded.")


class Streams(services.TokenizerServiceServicer):
    """Answers slowly enough to be interrupted."""

    async def Encode(self, request, context):
        await asyncio.sleep(0.005)
        return messages.EncodeResponse()

    async def GetTokenizerArtifact(self, request, context):
        for index in range(CHUNKS):
            yield messages.GetTokenizerArtifactResponse(data=bytes([index]))
            await asyncio.sleep(0.05)

    async def WatchVocabulary(self, request, context):
        yield messages.WatchVocabularyResponse()
        await asyncio.Event().wait()

    async def GetVocabulary(self, request, context):
        while request.start_id == FLOOD:
            yield messages.GetVocabularyResponse(vocabulary={"fingerprint": "f" * 2**20})
        await asyncio.Event().wait()

    async def EncodeStream(self, request_iterator, context):
        async for _ in request_iterator:
            await asyncio.Event().wait()
            yield messages.EncodeStreamResponse()

    async def Pad(self, request, context):
        await asyncio.Event().wait()


async def _serve(settings: ProbeSettings) -> int:
    tracer = span_collector.tracer(os.environ, "probe")
    server = Server(settings, metrics.process_registry(), [SERVICE], tracer)
    services.add_TokenizerServiceServicer_to_server(Streams(), server.grpc)
    await server.start()
    server.set_ready(True)
    await server.serve_until_stopped()
    return 0


if __name__ == "__main__":
    probe_settings = ProbeSettings.from_command_line()
    json_lines.configure(probe_settings.log_level)
    program.run(_serve(probe_settings))
