"""Health, admission and ports, as a probe and a caller see them."""

import asyncio
import json
import os
import socket
import time
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from rpc import health
from tests.integration.rpc_probe import SERVICE, failure, health_of, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Empty(services.TokenizerServiceServicer):
    async def Encode(self, request, context):
        return messages.EncodeResponse()


async def statuses(port):
    async with health_of(port) as stub:
        return {
            name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in ("", SERVICE, "liveness")
        }


async def test_health_follows_loading_ready_and_draining():
    unwell = {"": NOT_SERVING, SERVICE: NOT_SERVING, "liveness": SERVING}
    async with running(Empty(), ready=False) as (server, _):
        assert await statuses(server.health_port) == unwell
        server.set_ready(True)
        assert await statuses(server.health_port) == dict.fromkeys(unwell, SERVING)
        server.set_ready(False)
        assert await statuses(server.health_port) == unwell
        server.set_ready(True)
        server.drain()
        server.set_ready(True)
        assert await statuses(server.health_port) == unwell


async def test_a_paused_server_tells_probes_and_still_answers_calls():
    async with running(Empty()) as (server, channel):
        server.set_withheld("paused", True)
        assert (await statuses(server.health_port))[SERVICE] == NOT_SERVING
        await services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
        server.set_withheld("paused", False)
        assert (await statuses(server.health_port))[SERVICE] == SERVING


async def test_a_watching_probe_is_told_of_changes():
    async with (
        running(Empty(), ready=False) as (server, _),
        health_of(server.health_port) as stub,
    ):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == NOT_SERVING
        server.set_ready(True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


def probes(port, seconds, name="liveness"):
    """Asks as a kubelet does, for so long, each time with a timeout of 1 s; returns the answers."""
    answers, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=name)
            try:
                answers.append(stub.Check(request, timeout=1).status)
            except grpc.RpcError as error:
                answers.append(error.code())
        time.sleep(0.1)
    return answers


@pytest.mark.parametrize("name", ["liveness", SERVICE])
async def test_probes_are_answered_while_the_event_loop_is_held(name):
    async with running(Empty()) as (server, _):
        server.describe_health(lambda: {"lockstep-said": "here"})
        asking = asyncio.create_task(asyncio.to_thread(probes, server.health_port, 2.5, name))
        await asyncio.sleep(0.1)
        time.sleep(3)  # noqa: ASYNC251  # as one large message might
        answers = await asking
    assert len(answers) > 5
    assert set(answers) == {SERVING}


async def test_a_loop_that_never_runs_again_is_reported_to_probes(monkeypatch):
    monkeypatch.setattr(health, "LOOP_DEAD_S", 1.5)  # between two beats
    async with running(Empty()) as (server, _):
        asking = asyncio.create_task(asyncio.to_thread(probes, server.health_port, 2.5))
        await asyncio.sleep(0.1)
        time.sleep(3)  # noqa: ASYNC251
        answers = await asking
        assert answers[-1] == NOT_SERVING
        await asyncio.sleep(0.1)
        assert (await statuses(server.health_port))["liveness"] == SERVING


async def test_calls_that_stay_on_the_health_port_do_not_keep_probes_out():
    async with running(Empty()) as (server, _), AsyncExitStack() as stack:
        address = f"127.0.0.1:{server.health_port}"
        held = []
        for _ in range(30):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.insecure_channel(address, options)
            await stack.enter_async_context(channel)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            silent = channel.stream_unary("/grpc.health.v1.Health/Check")()
            assert (await watch.read()).status == SERVING
            held += [watch, silent]
        assert (await statuses(server.health_port))["liveness"] == SERVING
        server.drain()
        for watch in held[::2]:
            assert (await watch.read()).status == NOT_SERVING
        for call in held:
            call.cancel()


async def test_the_health_port_serves_health_only_and_the_service_port_serves_none():
    async with (
        running(Empty()) as (server, channel),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as health,
    ):
        answer = await failure(
            services.TokenizerServiceStub(health).Encode(messages.EncodeRequest())
        )
        assert answer.code is grpc.StatusCode.UNIMPLEMENTED
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert (await failure(check)).reason == "NOT_IMPLEMENTED"


@pytest.mark.parametrize("state", ["LOADING", "DRAINING"])
async def test_calls_are_refused_with_a_retry_while_not_ready(state):
    async with running(Empty(), ready=False) as (server, channel):
        if state == "DRAINING":
            server.drain()
        answer = await failure(
            services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
        )
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, state)
    assert answer.retry.retry_delay.seconds == 1
    assert answer.pushback_ms == "1000"


async def test_a_retry_policy_waits_as_long_as_the_server_asks():
    policy = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.01s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
    async with running(Empty(), ready=False) as (server, _):
        options = [("grpc.service_config", json.dumps(policy))]
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
            asyncio.get_running_loop().call_later(0.5, server.set_ready, True)
            # Backoff alone would give up after 0.03 s: the pushback of 1 s is kept.
            assert await call == messages.EncodeResponse()


async def test_more_calls_than_the_server_takes_are_refused_but_not_its_health():
    class Waiting(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            await asyncio.Event().wait()

    async with running(Waiting(), max_concurrent_calls=1) as (server, channel):
        stub = services.TokenizerServiceStub(channel)
        first = stub.Encode(messages.EncodeRequest())
        while server.lifecycle.running == 0:  # noqa: ASYNC110  # the server has no event for it
            await asyncio.sleep(0.01)
        answer = await failure(stub.Encode(messages.EncodeRequest()))
        assert (answer.reason, answer.metadata) == (
            "OVERLOADED",
            {"resource": "calls", "limit": "1"},
        )
        assert answer.pushback_ms == "500"
        assert (await statuses(server.health_port))[SERVICE] == SERVING
        first.cancel()


async def test_a_taken_port_is_an_error_and_not_shared():
    async with running(Empty()) as (server, _):
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}"):
            async with running(Empty(), port=server.port):
                pass
        with pytest.raises(OSError, match=f"port {server.metrics_port} for metrics"):
            async with running(Empty(), metrics_port=server.metrics_port):
                pass


async def test_ipv6_addresses_are_served():
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):  # noqa: ASYNC240
        pytest.skip("no IPv6 here")
    async with (
        running(Empty(), host="::1") as (server, _),
        grpc.aio.insecure_channel(f"[::1]:{server.port}") as channel,
    ):
        await services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
