"""Traces: from a program's span over both services to the steps of the engine."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import grpc
import pytest
import structlog
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services_pb
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rpc import span_collector
from tests.checkpoint_factory import make_checkpoint
from tests.integration import rpc_probe
from tests.integration.rpc_probe import SERVICE, failure, running
from tests.integration.span_collector import Collector, Span, collecting
from tests.services import ROOT, Services, running_services

V1 = "lockstep.v1"
ENGINE = [
    ("lockstep-model: queue", []),
    ("lockstep-model: prefill", []),
    ("lockstep-model: decode", []),
]
TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
NOT_SAMPLED = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-00"),)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory) -> Iterator[Services]:
    """Both services, set up to send their spans."""
    folder = tmp_path_factory.mktemp("traced")
    checkpoint = make_checkpoint(folder / "tiny", "llama")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in collector.environment.items():
            patch.setenv(name, value)
        with running_services(checkpoint, folder) as running:
            yield running


@pytest.fixture(scope="module")
def program(collector: Collector, traced: Services) -> dict[str, str]:
    """The trace ids of all that the program does."""
    names = "generate", "stream", "sampled", "session", "refused", "late", "left", "asynchronous"
    return run_program(collector, traced, *names)


def run_program(
    collector: Collector, services: Services, *names: str, **environment: str
) -> dict[str, str]:
    given = {**os.environ, **collector.environment, **services.environment, **environment}
    command = [sys.executable, "-m", "tests.integration.traced_program", *names]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(method: str, *below: object, service: str = "model") -> tuple[str, list[object]]:
    """The spans of one call: the client's, the service's, and those below."""
    name = f"{V1}.{method}"
    return (f"program: {name}", [(f"lockstep-{service}: {name}", list(below))])


ENCODE = call("TokenizerService/Encode", service="tokenizer")
DECODE = call("TokenizerService/Decode", service="tokenizer")
DECODE_STREAM = call("TokenizerService/DecodeStream", service="tokenizer")
GENERATE = call("ModelService/GenerateStream", *ENGINE)


def test_one_trace_goes_from_the_client_over_both_services_to_the_engine(collector, program):
    tree = collector.tree(program["generate"], 11)
    assert tree == [("program: generate", [("program: generate", [ENCODE, GENERATE, DECODE])])]


def test_the_calls_of_a_stream_of_text_are_one_trace(collector, program):
    ((name, ((operation, calls),)),) = collector.tree(program["stream"], 11)
    assert (name, operation) == ("program: stream", "program: stream")
    assert calls == [ENCODE, GENERATE, DECODE_STREAM]


def test_the_asyncio_client_traces_as_the_blocking_one(collector, program):
    tree = collector.tree(program["asynchronous"], 21)
    calls = [
        ("program: generate", [ENCODE, GENERATE, DECODE]),
        ("program: stream", [ENCODE, GENERATE, DECODE_STREAM]),
    ]
    assert tree == [("program: asynchronous", calls)]


def test_each_step_of_a_session_shows_how_long_it_waited_and_ran(collector, program):
    queue, prefill, decode = ENGINE
    tree = collector.tree(program["session"], 17)
    assert tree == [
        (
            "program: session",
            [
                call("LogitsSessionService/OpenSession", queue, prefill),
                call("LogitsSessionService/Step", queue, decode),
                call("LogitsSessionService/StepStream", queue, decode, queue, prefill),
                call("LogitsSessionService/CloseSession"),
            ],
        )
    ]


def test_a_span_lies_within_the_span_above_it(collector, program):
    for name in ("generate", "session"):
        spans = {s.span_id: s for s in collector.wait_for(11, trace_id=program[name])}
        slack_ns = 2_000_000  # clocks of processes, and of parts, are read one after the other
        for span in spans.values():
            if (above := spans.get(span.parent_id)) is not None:
                assert above.start_ns - slack_ns <= span.start_ns, (above, span)
                assert span.end_ns <= above.end_ns + slack_ns, (above, span)


def test_the_parts_of_a_sequence_follow_each_other_and_have_its_counts(collector, program):
    parts = collector.wait_for(
        3, trace_id=program["generate"], service="lockstep-model", kind="INTERNAL"
    )
    assert [part.name for part in parts] == ["queue", "prefill", "decode"]
    assert all(before.end_ns == after.start_ns for before, after in pairwise(parts))
    assert {part.attributes["lockstep.sequence"] for part in parts} == {0}
    assert parts[1].attributes["lockstep.cached_tokens"] == 0
    assert parts[2].attributes["lockstep.steps"] == 5


def only(collector: Collector, **wanted: object) -> Span:
    (span,) = collector.wait_for(1, **wanted)
    return span


def test_the_span_of_a_generation_has_the_attributes_of_the_genai_conventions(
    collector, program, traced
):
    method = f"{V1}.ModelService/GenerateStream"
    attributes = only(collector, trace_id=program["sampled"], name=method, kind="SERVER").attributes
    with traced.client() as client:
        model = client.model.info().model_id
    request_id = attributes.pop("lockstep.request_id")
    assert len(request_id) == 32
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": "OK",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "lockstep",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": pytest.approx(0.7),
        "gen_ai.request.top_k": 50,
        "gen_ai.request.top_p": pytest.approx(0.9),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.response.finish_reasons": ["length", "length"],
    }


def test_the_span_of_a_call_says_what_its_line_of_the_log_says(collector, program, traced):
    encode = only(
        collector, trace_id=program["generate"], name=f"{V1}.TokenizerService/Encode", kind="SERVER"
    )
    lines = [json.loads(line) for line in traced.tokenizer.log.read_text().splitlines()]
    (line,) = [
        x for x in lines if x.get("trace_id") == encode.trace_id and x["method"].endswith("/Encode")
    ]
    assert encode.attributes["lockstep.tokens"] == line["tokens"]
    assert encode.attributes["lockstep.request_id"] == line["request_id"]


def test_the_span_of_a_call_says_who_is_called(collector, program, traced):
    span = only(
        collector, trace_id=program["generate"], name=f"{V1}.TokenizerService/Encode", kind="CLIENT"
    )
    host, port = traced.tokenizer.address.split(":")
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{V1}.TokenizerService/Encode",
        "rpc.response.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
    }


@pytest.mark.parametrize(
    ("name", "reason", "is_fault"),
    [("refused", "INVALID_FIELD", False), ("late", "DEADLINE_EXCEEDED", True)],
)
def test_a_failed_call_is_an_error_of_the_client_and_of_the_service_where_it_is_its_fault(
    collector, program, name, reason, is_fault
):
    method = f"{V1}.ModelService/GenerateStream"
    client = only(collector, trace_id=program[name], name=method, kind="CLIENT")
    service = only(collector, trace_id=program[name], name=method, kind="SERVER")
    assert client.failed
    assert service.failed == is_fault
    assert service.attributes["error.type"] == reason
    kind = "DeadlineExceeded" if name == "late" else reason
    assert client.attributes["error.type"] == kind


def test_a_stream_that_is_left_is_cancelled_and_no_error(collector, program):
    method = f"{V1}.ModelService/GenerateStream"
    for kind in ("CLIENT", "SERVER"):
        span = only(collector, trace_id=program["left"], name=method, kind=kind)
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"
        assert not span.failed


def test_a_call_that_ends_before_the_engine_is_done_shows_how_far_it_came(collector, program):
    parts = collector.wait_for(
        2, trace_id=program["left"], service="lockstep-model", kind="INTERNAL"
    )
    assert [part.name for part in parts] == ["first_token", "decode"]
    assert parts[0].end_ns == parts[1].start_ns


def test_a_trace_that_is_not_sampled_is_not_sent_and_still_in_the_logs(collector, traced):
    ids = run_program(collector, traced, "generate", OTEL_TRACES_SAMPLER="always_off")
    after = run_program(collector, traced, "generate")
    collector.tree(after["generate"], 11)
    assert [span for span in collector.spans if span.trace_id == ids["generate"]] == []
    for service in (traced.tokenizer, traced.model):
        assert ids["generate"] in service.log.read_text()


def openmetrics(url: str) -> list[Any]:
    """Reads metrics as Prometheus does, with exemplars."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as page:
        return list(text_string_to_metric_families(page.read().decode()))


def exemplars(url: str, family: str) -> set[str]:
    """Returns the trace ids that a histogram leads to."""
    samples = [s for f in openmetrics(url) if f.name == family for s in f.samples]
    return {s.exemplar.labels["trace_id"] for s in samples if s.exemplar is not None}


@pytest.mark.parametrize(
    "family",
    [
        "grpc_server_handling_seconds",
        "lockstep_model_queue_seconds",
        "lockstep_model_time_to_first_token_seconds",
        "lockstep_model_time_per_output_token_seconds",
        "lockstep_model_inter_token_latency_seconds",
        "lockstep_model_request_seconds",
        "lockstep_model_session_step_seconds",
    ],
)
def test_a_latency_leads_to_a_trace_that_had_it(collector, program, traced, family):
    found = exemplars(traced.model.metrics_url, family)
    assert found
    assert found <= {span.trace_id for span in collector.spans}


class Probe(services_pb.TokenizerServiceServicer):
    async def Encode(self, request, context):
        return messages.EncodeResponse()


async def test_without_a_collector_a_sampled_trace_of_the_caller_is_an_exemplar():
    async with running(Probe()) as (server, channel):
        stub = services_pb.TokenizerServiceStub(channel)
        url = f"http://127.0.0.1:{server.metrics_port}/metrics"
        await stub.Encode(messages.EncodeRequest(), metadata=NOT_SAMPLED)
        await stub.Encode(messages.EncodeRequest())
        assert await asyncio.to_thread(exemplars, url, "grpc_server_handling_seconds") == set()
        await stub.Encode(messages.EncodeRequest(), metadata=SENT)
        assert await asyncio.to_thread(exemplars, url, "grpc_server_handling_seconds") == {TRACE}


async def test_a_method_that_does_not_exist_names_no_span(collector, monkeypatch):
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    tracer = span_collector.tracer(os.environ, "scanned")
    async with running(Probe(), tracer=tracer) as (_, channel):
        await failure(channel.unary_unary("/scan/First")(b""))
    (span,) = await asyncio.to_thread(collector.wait_for, 1, service="scanned")
    assert (span.name, span.attributes["rpc.method"]) == ("_OTHER", "_OTHER")
    assert span.failed


async def test_the_last_spans_of_a_process_are_sent_before_it_ends(collector, monkeypatch):
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ending")
    async with rpc_probe.process() as (child, ports):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            await services_pb.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0
    (span,) = [span for span in collector.spans if span.service == "ending"]
    assert span.name == f"{SERVICE}/Encode"


async def test_a_collector_that_is_away_costs_no_call_and_no_long_end(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    async with rpc_probe.process() as (child, ports):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            stub = services_pb.TokenizerServiceStub(channel)
            for _ in range(20):
                await stub.Encode(messages.EncodeRequest(), timeout=5)
        start = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "nobody"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
    ],
)
def test_an_exporter_that_is_not_installed_is_a_warning_with_a_remedy(environment):
    with structlog.testing.capture_logs() as log:
        assert span_collector.tracer(environment, "x") is None
    assert log[0]["log_level"] == "warning"
    assert "lockstep-services[otel]" in log[0]["remedy"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
    ],
)
def test_without_a_collector_nothing_makes_spans(environment):
    assert span_collector.tracer(environment, "x") is None


def test_nothing_of_opentelemetry_is_imported_unless_there_is_a_collector():
    program = (
        "import sys, os, lockstep_client, tokenizer_service.server, model_service.front.server;"
        "from rpc import span_collector; assert span_collector.tracer({}, 'x') is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
