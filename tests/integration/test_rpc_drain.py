"""Stopping a server that runs as a process of its own, as a supervisor does."""

import asyncio
import json
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from tests.integration.rpc_probe import (
    CHUNKS,
    FLOOD,
    SERVICE,
    Failure,
    failure,
    health_of,
    process,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ARTIFACT = messages.GetTokenizerArtifactRequest()
RECONNECT_AT_ONCE = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]


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
        assert_draining(await failure(stream))
        async with asyncio.timeout(5):  # of the 60 s that the stream could have had
            assert await child.wait() == 0


@pytest.mark.parametrize("method", ["GetVocabulary", "WatchVocabulary", "EncodeStream", "Pad"])
async def test_a_call_that_outlasts_the_drain_is_told_so(method):
    async with (
        process("--drain-timeout-s", "0.2") as (child, ports),
        grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel,
    ):
        stub = services.TokenizerServiceStub(channel)
        started = stub.WatchVocabulary(messages.WatchVocabularyRequest())
        call = {
            "GetVocabulary": lambda: stub.GetVocabulary(messages.GetVocabularyRequest()),
            "WatchVocabulary": lambda: started,
            "EncodeStream": stub.EncodeStream,
            "Pad": lambda: stub.Pad(messages.PadRequest()),
        }[method]()
        if method == "EncodeStream":
            await call.write(messages.EncodeStreamRequest())
        await anext(aiter(started))  # which the service has begun after the call
        await terminate(child, ports["health_port"])
        answer = await failure(call)
        assert_draining(answer)
        async with asyncio.timeout(5):
            assert await child.wait() == 0


def assert_draining(answer):
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert (answer.retry.retry_delay.seconds, answer.pushback_ms) == (1, "1000")


async def test_a_stream_that_nobody_reads_does_not_hold_the_shutdown():
    async with (
        process("--drain-timeout-s", "0.2") as (child, ports),
        grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel,
    ):
        stream = services.TokenizerServiceStub(channel).GetVocabulary(
            messages.GetVocabularyRequest(start_id=FLOOD)
        )
        await stream.read()
        await terminate(child, ports["health_port"])
        async with asyncio.timeout(10):
            assert await child.wait() == 0


async def call_until(over, channel, seen):
    """Calls again and again, as bare stubs do: without a retry, and without a pause."""
    stub = services.TokenizerServiceStub(channel)
    while not over.is_set():
        try:
            await stub.Encode(messages.EncodeRequest(), timeout=10)
            seen["OK"] += 1
        except grpc.aio.AioRpcError as error:
            answer = Failure(error)
            away = "failed to connect" in answer.message
            seen[f"{answer.code.name} {answer.reason or ('away' if away else 'broken')}"] += 1
            assert (answer.pushback_ms, bool(answer.retry)) == (
                ("1000", True) if answer.reason else (None, False)
            )
            if away:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "restarts", [2, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(300)])]
)
async def test_restarts_under_load_cancel_no_call(restarts):
    seen, over = Counter(), asyncio.Event()
    async with AsyncExitStack() as stack:
        flags, callers = ["--log-level", "warning"], []
        for _ in range(restarts):
            async with process(*flags) as (child, ports):
                if not callers:
                    flags += ["--port", str(ports["port"])]
                    for _ in range(8):
                        options = [("grpc.use_local_subchannel_pool", 1), *RECONNECT_AT_ONCE]
                        address = f"127.0.0.1:{ports['port']}"
                        channel = grpc.aio.insecure_channel(address, options)
                        await stack.enter_async_context(channel)
                        callers += [call_until(over, channel, seen) for _ in range(8)]
                    load = asyncio.gather(*callers)
                served = seen["OK"]
                async with asyncio.timeout(20):
                    while seen["OK"] < served + 200:  # noqa: ASYNC110  # a counter has no event
                        await asyncio.sleep(0.01)
                await terminate(child, ports["health_port"])
                async with asyncio.timeout(10):
                    assert await child.wait() == 0
        over.set()
        await load
    print(f"{restarts} restarts: {dict(seen)}")
    unavailable = {f"UNAVAILABLE {why}" for why in ("DRAINING", "away", "broken")}
    assert set(seen) <= {"OK", *unavailable}


async def test_a_program_that_cannot_start_says_so_in_one_line():
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.rpc_probe", "--prot", "1"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, message = await child.communicate()
    assert child.returncode == 2
    assert message == b"python -m __main__: unrecognized arguments: --prot 1\n"
