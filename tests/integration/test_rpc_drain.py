"""Stopping a server that runs as a process of its own, as a supervisor does."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from tests.integration.rpc_probe import CHUNKS, SERVICE, failure, health_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ARTIFACT = messages.GetTokenizerArtifactRequest()


@asynccontextmanager
async def process(*flags):
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


async def terminate(child, health_port, number=signal.SIGTERM):
    """Sends a signal and waits until the health service says that it was heard."""
    async with health_of(health_port) as stub:
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING
        child.send_signal(number)
        async with asyncio.timeout(5):
            assert (await watch.read()).status == NOT_SERVING
        watch.cancel()


async def test_sigterm_lets_a_running_stream_finish_and_exits_with_zero():
    async with (
        process() as (child, ports),
        grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel,
    ):
        stub = services.TokenizerServiceStub(channel)
        stream = stub.GetTokenizerArtifact(ARTIFACT)
        received = [(await anext(aiter(stream))).data]
        await terminate(child, ports["health_port"])
        assert (await failure(stub.GetTokenizerArtifact(ARTIFACT))).reason == "DRAINING"
        received += [chunk.data async for chunk in stream]
        assert len(received) == CHUNKS
        assert await stream.code() is grpc.StatusCode.OK
        async with asyncio.timeout(5):
            output, log = await child.communicate()
        assert (child.returncode, output) == (0, b"")
        events = [json.loads(line)["event"] for line in log.splitlines()]
        assert events == ["started", "draining", "call", "call", "stopping"]


async def test_a_second_signal_stops_at_once():
    async with (
        process() as (child, ports),
        grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel,
    ):
        request = messages.WatchVocabularyRequest()
        stream = aiter(services.TokenizerServiceStub(channel).WatchVocabulary(request))
        await anext(stream)
        await terminate(child, ports["health_port"], signal.SIGINT)
        child.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):  # of the 60 s that the stream could have had
            assert await child.wait() == 0
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await anext(stream)


async def test_a_stream_that_outlasts_the_drain_is_cut():
    async with (
        process("--drain-timeout-s", "0.2") as (child, ports),
        grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel,
    ):
        request = messages.WatchVocabularyRequest()
        stream = aiter(services.TokenizerServiceStub(channel).WatchVocabulary(request))
        await anext(stream)
        await terminate(child, ports["health_port"])
        async with asyncio.timeout(5):
            assert await child.wait() == 0
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await anext(stream)


async def test_a_program_that_cannot_start_says_so_in_one_line():
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.rpc_probe", "--prot", "1"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, message = await child.communicate()
    assert child.returncode == 2
    assert message == b"python -m __main__: unrecognized arguments: --prot 1\n"
