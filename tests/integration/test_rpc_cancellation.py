"""A call that nobody waits for any more ends, and its handler cleans up."""

import asyncio
import gc
import sys
import threading
from contextlib import contextmanager

import grpc
import pytest
import structlog
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from tests.integration.rpc_probe import SERVICE, failure, running

SOON_S = 2.0
CHUNK = messages.GetTokenizerArtifactResponse(data=bytes(2**20))


class Endless(services.TokenizerServiceServicer):
    """Never finishes by itself; records how each call ended."""

    def __init__(self):
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.sent = 0

    @contextmanager
    def call(self):
        self.started.set()
        try:
            yield
        finally:
            self.ended.set()

    async def Encode(self, request, context):
        with self.call():
            await asyncio.Event().wait()

    async def GetVocabulary(self, request, context):
        with self.call():
            yield messages.GetVocabularyResponse()
            await asyncio.Event().wait()

    async def DecodeStream(self, request_iterator, context):
        with self.call():
            await context.write(messages.DecodeStreamResponse())
            await context.read()

    async def GetTokenizerArtifact(self, request, context):
        with self.call():
            while True:
                yield CHUNK
                self.sent += 1

    async def WatchVocabulary(self, request, context):
        update = messages.WatchVocabularyResponse(heartbeat={"fingerprint": "f" * 2**20})
        with self.call():
            while True:
                await context.write(update)
                self.sent += 1

    async def ends(self):
        async with asyncio.timeout(SOON_S):
            await self.ended.wait()


@pytest.fixture
async def endless():
    return Endless()


@pytest.fixture
async def probe(endless):
    async with running(endless) as (server, channel):
        yield server, services.TokenizerServiceStub(channel)
        async with asyncio.timeout(SOON_S):
            await server.lifecycle.wait_idle()


async def test_cancelling_a_unary_call_cancels_its_handler(probe, endless):
    call = probe[1].Encode(messages.EncodeRequest())
    await endless.started.wait()
    call.cancel()
    await endless.ends()


async def test_a_cancelled_call_is_no_error_in_the_log(probe, endless):
    with structlog.testing.capture_logs() as log:
        call = probe[1].Encode(messages.EncodeRequest())
        await endless.started.wait()
        call.cancel()
        await endless.ends()
        await probe[0].lifecycle.wait_idle()
    assert [(line["event"], line.get("code")) for line in log] == [("call", "CANCELLED")]


@pytest.mark.parametrize("method", ["GetVocabulary", "DecodeStream"])
async def test_cancelling_a_stream_cancels_its_handler(probe, endless, method):
    request = messages.GetVocabularyRequest() if method == "GetVocabulary" else None
    call = getattr(probe[1], method)(request)
    await call.read()
    call.cancel()
    await endless.ends()


async def test_a_deadline_cancels_the_handler(probe, endless):
    answer = await failure(probe[1].Encode(messages.EncodeRequest(), timeout=0.1))
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await endless.ends()


async def test_a_call_that_the_client_drops_without_a_word_is_cancelled(probe, endless):
    call = probe[1].GetVocabulary(messages.GetVocabularyRequest())
    await call.read()
    del call
    gc.collect()
    await endless.ends()


async def test_a_call_that_a_blocking_client_drops_is_cancelled(probe, endless):
    def take_one_and_drop(port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            responses = services.TokenizerServiceStub(channel).GetVocabulary(
                messages.GetVocabularyRequest()
            )
            next(responses)
            del responses
            gc.collect()
            dropped.set()
            closed.wait(2 * SOON_S)  # the channel stays open, and its other calls alive

    dropped, closed = threading.Event(), threading.Event()
    client = asyncio.create_task(asyncio.to_thread(take_one_and_drop, probe[0].port))
    try:
        await asyncio.to_thread(dropped.wait, SOON_S)
        await endless.ends()
    finally:
        closed.set()
        await client


async def test_a_client_that_is_killed_frees_its_call(probe, endless):
    program = (
        "import sys, time, grpc\n"
        "channel = grpc.insecure_channel(sys.argv[1])\n"
        f"next(channel.unary_stream('/{SERVICE}/GetVocabulary')(b''))\n"
        "time.sleep(60)\n"
    )
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, f"127.0.0.1:{probe[0].port}"
    )
    await endless.started.wait()
    client.kill()
    await client.wait()
    await endless.ends()


@pytest.mark.parametrize("method", ["GetTokenizerArtifact", "WatchVocabulary"])
async def test_a_handler_blocked_in_a_write_ends_without_a_word(probe, endless, caplog, method):
    requests = {
        "GetTokenizerArtifact": messages.GetTokenizerArtifactRequest(),
        "WatchVocabulary": messages.WatchVocabularyRequest(),
    }
    call = getattr(probe[1], method)(requests[method])
    await call.read()
    sent = -1
    while sent != endless.sent:  # until the client's window is full
        sent = endless.sent
        await asyncio.sleep(0.2)
    call.cancel()
    await endless.ends()
    await probe[0].lifecycle.wait_idle()
    assert caplog.records == []  # gRPC would log a traceback


async def test_a_stream_runs_until_its_generator_has_cleaned_up():
    class Slow(Endless):
        async def GetTokenizerArtifact(self, request, context):
            try:
                while True:
                    yield CHUNK
            finally:
                await asyncio.sleep(0.1)
                self.ended.set()

    slow = Slow()
    async with running(slow) as (server, channel):
        stub = services.TokenizerServiceStub(channel)
        call = stub.GetTokenizerArtifact(messages.GetTokenizerArtifactRequest())
        await call.read()
        await asyncio.sleep(0.2)  # the generator is suspended, the write blocked
        call.cancel()
        await server.lifecycle.wait_idle()
        assert slow.ended.is_set()


async def test_stopping_the_server_waits_for_handlers_to_clean_up():
    class Slow(Endless):
        async def Encode(self, request, context):
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.2)
                self.ended.set()

    slow = Slow()
    async with running(slow) as (server, channel):
        call = services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
        await slow.started.wait()
        await server.stop()
        assert slow.ended.is_set()
        assert (await failure(call)).code is grpc.StatusCode.UNAVAILABLE
