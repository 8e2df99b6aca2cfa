"""What a hostile or careless client can cost."""

import asyncio
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import grpc
import psutil
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from tests.integration.rpc_probe import SERVICE, Failure, failure, process, running

MEBIBYTE = 2**20
BOMB_BYTES = 128 * MEBIBYTE
# Sends zeros that compress a thousandfold, and prints how the call ended.
BOMB = f"""
import sys, grpc
options = [("grpc.max_send_message_length", -1)]
channel = grpc.insecure_channel(sys.argv[1], options, compression=grpc.Compression.Gzip)
try:
    channel.unary_unary("/{SERVICE}/Encode")(bytes({BOMB_BYTES}), timeout=30)
except grpc.RpcError as error:
    print(error.code().name)
"""


class Empty(services.TokenizerServiceServicer):
    async def Encode(self, request, context):
        return messages.EncodeResponse()


@contextmanager
def peak_growth():
    """Yields a function that returns how much memory this process took at most, in bytes."""
    process = psutil.Process()
    base = peak = process.memory_info().rss
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak - base
    finally:
        done.set()
        watcher.join()


async def throw_bomb(port):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BOMB, f"127.0.0.1:{port}"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    return output.decode().strip()


async def test_a_compressed_bomb_is_refused_before_it_is_inflated():
    async with running(Empty()) as (server, _):
        with peak_growth() as growth:
            assert await throw_bomb(server.port) == "UNIMPLEMENTED"
            assert growth() < 16 * MEBIBYTE


async def test_grpc_itself_stops_inflating_at_the_message_limit():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 * MEBIBYTE)])
    services.add_TokenizerServiceServicer_to_server(Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with peak_growth() as growth:
            assert await throw_bomb(port) == "RESOURCE_EXHAUSTED"
            assert growth() < 32 * MEBIBYTE, "this grpcio inflates the whole bomb"
    finally:
        await server.stop(0)


async def test_a_compressed_message_is_refused_even_when_small():
    async with running(Empty()) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        request = messages.EncodeRequest(items=[messages.TextItem(text="a" * 1000)])
        answer = await failure(stub.Encode(request, compression=grpc.Compression.Gzip))
        assert answer.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_beyond_what_is_read_is_refused_by_grpc():
    async with running(Empty(), max_message_bytes=1024) as (_, channel):
        encode = channel.unary_unary(f"/{SERVICE}/Encode")
        assert (await failure(encode(bytes(4 * 1024)))).reason == "MESSAGE_TOO_LARGE"
        answer = await failure(encode(bytes(4 * 1024 + 1)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)


@pytest.mark.parametrize("reflection", [False, True])
async def test_the_schema_is_shown_only_where_switched_on(reflection):
    async with running(Empty(), reflection=reflection) as (_, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        if reflection:
            (answer,) = [response async for response in call]
            names = {service.name for service in answer.list_services_response.service}
            assert SERVICE in names
        else:
            assert (await failure(call)).reason == "NOT_IMPLEMENTED"


async def test_metadata_beyond_the_limit_is_refused():
    async with running(Empty()) as (_, channel):
        encode = channel.unary_unary(f"/{SERVICE}/Encode")
        await encode(b"", metadata=(("x-small", "a" * 4096),))
        answer = await failure(encode(b"", metadata=(("x-large", "a" * 20_000),)))
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_with_too_many_calls_waits_and_others_do_not():
    class Waiting(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            await asyncio.Event().wait()

        async def Decode(self, request, context):
            return messages.DecodeResponse()

    async with running(Waiting(), max_streams_per_connection=2) as (server, greedy):
        calls = [
            services.TokenizerServiceStub(greedy).Encode(messages.EncodeRequest()) for _ in range(5)
        ]
        await asyncio.sleep(0.3)
        assert server.lifecycle.running == 2
        # A pool of its own: channels to one address would share the connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as other:
            stub = services.TokenizerServiceStub(other)
            await stub.Decode(messages.DecodeRequest(), timeout=2)
        for call in calls:
            call.cancel()


@pytest.mark.parametrize(
    "calls", [3_000, pytest.param(50_000, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
async def test_every_call_beyond_what_the_server_can_do_is_told_so(calls):
    flags = ("--max-concurrent-calls", "8", "--log-level", "warning")
    async with process(*flags) as (child, ports):
        psutil.Process(child.pid).cpu_affinity([0])
        options = [("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}", options) as channel:
            stub = services.TokenizerServiceStub(channel)
            seen = Counter()

            async def call_again_and_again():
                while seen.total() < calls:
                    try:
                        await stub.Encode(messages.EncodeRequest(), timeout=60)
                        seen["OK"] += 1
                    except grpc.aio.AioRpcError as error:
                        answer = Failure(error)
                        retry = bool(answer.retry), answer.pushback_ms
                        seen[answer.code.name, answer.reason, *retry] += 1

            await asyncio.gather(*(call_again_and_again() for _ in range(512)))
    assert set(seen) == {"OK", ("RESOURCE_EXHAUSTED", "OVERLOADED", True, "500")}


async def test_connections_beyond_the_limit_are_closed():
    async with running(Empty(), max_connections=3) as (server, _):
        address = ("127.0.0.1", server.port)
        connections = [await asyncio.to_thread(socket.create_connection, address) for _ in range(6)]
        await asyncio.sleep(0.3)
        assert sum(not is_closed(connection) for connection in connections) == 3
        for connection in connections:
            connection.close()


def is_closed(connection):
    connection.settimeout(0.05)
    try:
        while data := connection.recv(4096):
            assert data  # the server's settings frame
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.slow
async def test_a_connection_that_says_nothing_is_closed():
    async with running(Empty()) as (server, _):
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.settimeout(20)

            def wait_for_the_end():
                while silent.recv(4096):
                    pass

            await asyncio.to_thread(wait_for_the_end)
        assert 8 < time.monotonic() - start < 15
