"""What Prometheus and the log say of calls."""

import asyncio
import io
import json
import logging as stdlib_logging
import socket
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack

import pytest
import structlog
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services
from prometheus_client.parser import text_string_to_metric_families

from rpc import errors, exposition, json_lines, logging
from tests.integration.rpc_probe import SERVICE, failure, running

ENCODE = messages.EncodeRequest(items=[messages.TextItem(text="top-secret")])


class Probe(services.TokenizerServiceServicer):
    async def Encode(self, request, context):
        return messages.EncodeResponse()

    async def Decode(self, request, context):
        raise errors.EngineLost

    async def Pad(self, request, context):
        await asyncio.Event().wait()

    async def EncodeStream(self, request_iterator, context):
        async for request in request_iterator:
            for _ in range(2):
                yield messages.EncodeStreamResponse(item_id=request.item_id)


@pytest.fixture
async def probe():
    async with running(Probe()) as (server, channel):
        yield server, services.TokenizerServiceStub(channel), channel


async def scrape(server):
    """Returns every sample as {(name, *sorted label values): value}."""

    def read():
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as response:
            return response.read().decode()

    text = await asyncio.to_thread(read)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def test_every_series_of_a_method_exists_before_its_first_call(probe):
    samples = await scrape(probe[0])
    for method, kind in (("Encode", "unary"), ("EncodeStream", "bidi_stream")):
        assert samples["grpc_server_started_total", method, SERVICE, kind] == 0
        assert samples["grpc_server_handled_total", "OK", method, SERVICE, kind] == 0
        # The alert about bugs takes its increase: a series that begins at 1 has none.
        assert samples["grpc_server_handled_total", "INTERNAL", method, SERVICE, kind] == 0
        assert samples["grpc_server_handling_seconds_count", method, SERVICE, kind] == 0
        assert samples["grpc_server_in_flight", method, SERVICE] == 0
    assert samples["grpc_server_started_total", "GetVocabulary", SERVICE, "server_stream"] == 0


async def test_a_call_is_counted_timed_and_measured(probe):
    server, stub, _ = probe
    await stub.Encode(ENCODE)
    samples = await scrape(server)
    method = ("Encode", SERVICE, "unary")
    assert samples["grpc_server_started_total", *method] == 1
    assert samples["grpc_server_handled_total", "OK", *method] == 1
    assert samples["grpc_server_msg_received_total", *method] == 1
    assert samples["grpc_server_msg_sent_total", *method] == 1
    assert samples["grpc_server_handling_seconds_count", *method] == 1
    assert samples["grpc_server_request_size_bytes_sum", "Encode", SERVICE] == ENCODE.ByteSize()
    assert samples["grpc_server_request_size_bytes_bucket", "Encode", SERVICE, "64.0"] == 1
    assert samples["grpc_server_response_size_bytes_count", "Encode", SERVICE] == 1


async def test_the_messages_of_a_stream_are_counted_one_by_one(probe):
    server, stub, _ = probe
    call = stub.EncodeStream(iter([messages.EncodeStreamRequest()] * 3))
    assert len([response async for response in call]) == 6
    samples = await scrape(server)
    method = ("EncodeStream", SERVICE, "bidi_stream")
    assert samples["grpc_server_msg_received_total", *method] == 3
    assert samples["grpc_server_msg_sent_total", *method] == 6


async def test_a_failure_is_counted_under_the_code_the_caller_saw(probe):
    server, stub, channel = probe
    await failure(stub.Decode(messages.DecodeRequest()))
    await failure(stub.CountTokens(messages.CountTokensRequest()))
    await failure(channel.unary_unary(f"/{SERVICE}/Encode")(b"\xff"))
    late = ("grpc_server_handled_total", "DEADLINE_EXCEEDED", "Pad", SERVICE, "unary")
    while late not in await scrape(server):  # what the caller gives up first counts as cancelled
        await failure(stub.Pad(messages.PadRequest(), timeout=0.1))
        await server.lifecycle.wait_idle()  # the server may learn of the deadline after its caller
    call = stub.Pad(messages.PadRequest())
    while server.lifecycle.running == 0:  # noqa: ASYNC110  # the server has no event for it
        await asyncio.sleep(0.01)
    assert (await scrape(server))["grpc_server_in_flight", "Pad", SERVICE] == 1
    call.cancel()
    await server.lifecycle.wait_idle()
    samples = await scrape(server)
    for reason, count in (("ENGINE_LOST", 1), ("NOT_IMPLEMENTED", 1), ("OVERLOADED", 0)):
        assert samples["lockstep_calls_failed_total", reason] == count
    for code, method in (
        ("UNAVAILABLE", "Decode"),
        ("UNIMPLEMENTED", "CountTokens"),
        ("INVALID_ARGUMENT", "Encode"),
        ("DEADLINE_EXCEEDED", "Pad"),
    ):
        assert samples["grpc_server_handled_total", code, method, SERVICE, "unary"] == 1
    assert samples["grpc_server_handled_total", "CANCELLED", "Pad", SERVICE, "unary"] >= 1
    assert samples["grpc_server_in_flight", "Pad", SERVICE] == 0


async def test_a_scanner_adds_no_series(probe):
    server, _, channel = probe
    await failure(channel.unary_unary("/scan/First")(b""))
    before = await scrape(server)
    for index in range(50):
        await failure(channel.unary_unary(f"/scan.Service{index}/Method{index}")(b""))
    after = await scrape(server)
    assert set(after) == set(before)
    handled = ("grpc_server_handled_total", "UNIMPLEMENTED", "other", "other", "other")
    assert (before[handled], after[handled]) == (1, 51)


async def test_the_ready_gauge_says_what_health_says():
    async with running(Probe(), ready=False) as (server, _):
        assert (await scrape(server))["lockstep_ready", "tests"] == 0
        server.set_ready(True)
        assert (await scrape(server))["lockstep_ready", "tests"] == 1
        server.drain()
        assert (await scrape(server))["lockstep_ready", "tests"] == 0


async def until_logged(log: list, count: int = 1) -> None:
    """Waits for lines: a call's is written after its caller has the answer."""
    async with asyncio.timeout(5):
        while len(log) < count:  # noqa: ASYNC110  # a list has no event
            await asyncio.sleep(0.01)


async def test_a_call_is_one_line_with_method_code_duration_and_id(probe):
    _, stub, _ = probe
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as log:
        await stub.Encode(ENCODE, metadata=(("x-request-id", "trace-1"),))
        await until_logged(log)
        await failure(stub.Decode(messages.DecodeRequest()))
        await until_logged(log, 2)
    named, failed = log
    assert 0 < named.pop("duration_ms") < 1000
    assert named == {
        "event": "call",
        "log_level": "info",
        "method": f"/{SERVICE}/Encode",
        "code": "OK",
        "request_id": "trace-1",
    }
    assert (failed["code"], failed["reason"]) == ("UNAVAILABLE", "ENGINE_LOST")
    assert len(failed["request_id"]) == 32


@pytest.mark.parametrize("hostile", ["x" * 129, 'a"b', "a b", ""])
async def test_a_request_id_that_could_confuse_a_reader_is_replaced(probe, hostile):
    _, _, channel = probe
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as log:
        await channel.unary_unary(f"/{SERVICE}/Encode")(b"", metadata=(("x-request-id", hostile),))
        await until_logged(log)
    assert log[0]["request_id"] != hostile
    assert len(log[0]["request_id"]) == 32


async def test_a_line_has_what_the_handler_noted_and_the_trace_of_the_caller():
    class Noting(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            logging.note(session="abc")
            logging.count(tokens=2)
            await asyncio.create_task(self.count_more())
            raise errors.Overloaded("sequences", 4, retry_delay_s=1)

        async def count_more(self):
            logging.count(tokens=3)

    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
    async with running(Noting()) as (_, channel):
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as log:
            stub = services.TokenizerServiceStub(channel)
            await failure(stub.Encode(ENCODE, metadata=sent))
            await failure(stub.Encode(ENCODE, metadata=(("traceparent", f"00-{trace}-x"),)))
            await until_logged(log, 2)
    traced, broken = log
    assert (traced["session"], traced["tokens"], traced["trace_id"]) == ("abc", 5, trace)
    assert (broken["tokens"], "trace_id" in broken) == (5, False)


async def test_calls_refused_in_masses_are_logged_in_part_and_none_goes_uncounted():
    class Full(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            raise errors.Overloaded("sequences", 4, retry_delay_s=1)

    async with running(Full()) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        with structlog.testing.capture_logs() as log:
            start = time.monotonic()
            for _ in range(50):
                await asyncio.gather(*(failure(stub.Encode(ENCODE)) for _ in range(8)))
            seconds = time.monotonic() - start
            await asyncio.sleep(1.1)  # a second of its own for the last one
            await failure(stub.Encode(ENCODE))
            await until_logged(log)
            while "left_out" not in log[-1]:  # noqa: ASYNC110  # a list has no event
                await asyncio.sleep(0.01)
    assert len(log) <= 10 * (seconds + 2) + 1
    assert len(log) + sum(line.get("left_out", 0) for line in log) == 401


async def test_the_path_a_scanner_asks_for_is_cut_in_the_log(probe):
    with structlog.testing.capture_logs() as log:
        await failure(probe[2].unary_unary("/" + "x" * 1000 + "/Y")(b""))
        await until_logged(log)
    assert len(log[0]["method"]) == 128


@pytest.fixture
def lines(monkeypatch):
    """Configures logging as a service does; returns a function that reads the lines."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = stdlib_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # else configuring would close those of pytest
    json_lines.configure("info")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_line_is_json_whatever_it_holds(lines):
    structlog.get_logger().info("a\nb", text='\x1b[31m"\u2028', debug=1)
    stdlib_logging.getLogger("library").warning("a %s", "line\nbreak")
    structlog.get_logger().debug("too low")
    first, second = lines()
    assert (first["event"], first["text"], first["level"]) == ("a\nb", '\x1b[31m"\u2028', "info")
    assert (second["event"], second["level"]) == ("a line\nbreak", "warning")
    assert "timestamp" in first
    assert "timestamp" in second


def test_a_traceback_shows_no_local_variables(lines):
    def fail(prompt):
        raise ZeroDivisionError

    try:
        fail("top-" + "secret")
    except ZeroDivisionError:
        structlog.get_logger().exception("unhandled error")
        stdlib_logging.getLogger("library").exception("unhandled error")
    for line in lines():
        assert "ZeroDivisionError" in line["exception"]
        assert "top-secret" not in json.dumps(line)


async def test_no_text_of_a_request_reaches_the_log(lines):
    class Broken(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            raise RuntimeError

    async with running(Broken(), capture=False) as (_, channel):
        await failure(services.TokenizerServiceStub(channel).Encode(ENCODE))
    events = {line["event"]: line for line in lines()}
    assert events["unhandled error"]["request_id"] == events["call"]["request_id"]
    assert "top-secret" not in json.dumps(events)


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nAccept: text"])
async def test_connections_that_do_not_go_on_leave_no_line_and_few_threads(
    sent, lines, monkeypatch, capfd
):
    monkeypatch.setattr(exposition._Handler, "timeout", 0.3)
    async with running(Probe(), capture=False) as (server, _):
        before = threading.active_count()
        address = ("127.0.0.1", server.metrics_port)
        with ExitStack() as stack:
            for _ in range(100):
                # Nobody is turned away, to be let in a second later.
                half_open = stack.enter_context(socket.create_connection(address, timeout=0.9))
                half_open.sendall(sent)
            most = threading.active_count()
            assert (await scrape(server))["lockstep_ready", "tests"] == 1
        assert most - before < 40
        most_in_the_end = before + 1  # with that which reads for `scrape`
        while threading.active_count() > most_in_the_end:  # noqa: ASYNC110  # threads have no event
            await asyncio.sleep(0.01)
    assert {line["event"] for line in lines()} <= {"started", "draining"}
    assert "Traceback" not in capfd.readouterr().err
