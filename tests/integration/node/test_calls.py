"""What goes with every call: repetition, certificates, tokens, ids and traces."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import vocabulary_admin_service_pb2_grpc as admin_services_pb

from lockstep_client._transport import prompt_prefix
from lockstep_client._transport.service_config import IDEMPOTENT_METHODS
from lockstep_client._values import batch as batches
from rpc import errors
from tests.callers import write_principals
from tests.integration.node.package import needs_node, probe, run
from tests.integration.rpc_probe import running
from tests.integration.test_client_connection import Counting
from tests.integration.test_client_endings import Importing
from tests.services import ServiceProcess, Services

SECRET = b"of all clients"

pytestmark = needs_node


def test_calls_have_an_id_in_the_logs_and_the_trace_that_they_are_given(
    built: Path, services: Services
):
    trace, request_id = "4bf92f3577b34da6a3ce929d0e0e4736", "named-by-the-caller"
    sent = {"TRACEPARENT": f"00-{trace}-00f067aa0ba902b7-01", "REQUEST_ID": request_id}
    probe("traced", built, **services.environment, **sent)

    def calls(service: ServiceProcess, **fields: str) -> list[dict[str, Any]]:
        lines = map(json.loads, service.log.read_text().splitlines())
        return [line for line in lines if fields.items() <= line.items()]

    deadline = time.monotonic() + 10
    while not (named := calls(services.tokenizer, request_id=request_id)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    of_trace = [
        line
        for each in (services.tokenizer, services.model)
        for line in calls(each, trace_id=trace)
    ]
    methods = {line["method"].rpartition("/")[2] for line in of_trace if line["event"] == "call"}
    assert methods == {"Encode", "GenerateStream", "Decode"}
    assert len({line["request_id"] for line in of_trace}) == 1
    assert "trace_id" not in named[0]


class Failing(Counting):
    """Counts calls, and fails the first ones; some fail after their first message."""

    def __init__(self, *failures: errors.ServiceError, messages_before: int = 0):
        super().__init__(*failures)
        self.messages_before = messages_before

        self.fed: list[list[int]] = []

    async def GetVocabulary(self, request, context):
        for _ in range(self.messages_before):
            yield messages.GetVocabularyResponse()
        yield self._answer(messages.GetVocabularyResponse())

    async def DecodeStream(self, request_iterator, context):
        first = await anext(aiter(request_iterator))
        for _ in range(self.messages_before):
            yield messages.DecodeStreamResponse()
        yield self._answer(messages.DecodeStreamResponse())
        self.fed.append(list(first.ids))
        async for request in request_iterator:
            if not request.end_of_sequence:
                self.fed.append(list(request.ids))
            yield messages.DecodeStreamResponse()


async def _call(built: Path, port: int, method: str, **environment: str) -> Any:
    address = {"LOCKSTEP_TOKENIZER": f"localhost:{port}", "LOCKSTEP_MODEL": f"localhost:{port}"}
    called = {**address, "METHOD": method, **environment}
    seen = await asyncio.to_thread(probe, "retries", built, **called)
    return seen["failure"]


def _overloaded() -> errors.Overloaded:
    return errors.Overloaded("calls", 1, retry_delay_s=0.01)


@pytest.mark.parametrize("method", ["encode", "vocabulary"])
async def test_a_call_that_is_refused_for_now_is_made_again(built: Path, method):
    service = Failing(_overloaded(), errors.Loading())
    async with running(service) as (server, _):
        assert await _call(built, server.port, method) is None
    assert service.calls == 3


async def test_a_stream_that_has_begun_is_not_made_again(built: Path):
    service = Failing(_overloaded(), messages_before=1)
    async with running(service) as (server, _):
        failure = await _call(built, server.port, "vocabulary")
    assert (failure["reason"], failure["retryDelayMs"], service.calls) == ("OVERLOADED", 10, 1)


async def test_repetition_can_be_switched_off(built: Path):
    service = Failing(_overloaded())
    async with running(service) as (server, _):
        failure = await _call(built, server.port, "encode", RETRIES="0")
    assert (failure["reason"], service.calls) == ("OVERLOADED", 1)


def test_a_call_that_nobody_has_looked_at_is_made_again_by_grpc_itself(built: Path):
    answers = probe("refused", built, REFUSALS="1", RETRIES="0")
    assert answers == {"encode": None, "openSession": None, "vocabulary": None, "numCalls": 6}


def test_a_connection_without_room_is_not_a_service_that_is_away(built: Path):
    answers = probe("refused", built, REFUSALS="2", RETRIES="1")
    assert answers == {"encode": None, "openSession": None, "vocabulary": None, "numCalls": 9}
    refused = probe("refused", built, REFUSALS="100", RETRIES="0")
    for call in ("encode", "openSession", "vocabulary"):
        assert (refused[call]["reason"], refused[call]["retryDelayMs"]) == ("OVERLOADED", 100)


async def test_a_stream_both_ways_is_made_again_until_it_answers(built: Path):
    service = Failing(_overloaded(), errors.Loading())
    async with running(service) as (server, _):
        assert await _call(built, server.port, "decoder") is None
    assert (service.calls, service.fed) == (3, [[5], [6]])
    service = Failing(_overloaded(), messages_before=1)
    async with running(service) as (server, _):
        failure = await _call(built, server.port, "decoder")
    assert (failure["reason"], service.calls) == ("OVERLOADED", 1)


async def test_an_import_is_made_again_unless_its_pieces_can_be_read_once(built: Path):
    servicer, server = Importing(), grpc.aio.server()
    admin_services_pb.add_VocabularyAdminServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert await _call(built, port, "importPieces") is None
        assert (await _call(built, port, "importOnce"))["name"] == "ConnectionFailed"
    finally:
        await server.stop(None)
    assert servicer.received == [b"ab", b"ab", b"c"]


async def test_a_thousand_calls_at_a_time_on_one_client_are_all_answered(built: Path):
    service = Failing()
    async with running(service) as (server, _):
        assert await _call(built, server.port, "thousand", RETRIES="0") is None
    assert service.calls == 1000


def test_gateways_are_told_how_prompts_begin_by_the_name_of_the_python_client(built: Path):
    seen = probe("prefix", built, LOCKSTEP_PREFIX_KEY=SECRET.decode())
    long = list(range(prompt_prefix.NUM_TOKENS))

    def named(ids: list[int], **fields: str) -> str:
        request = model_pb.GenerateRequest(prompt=batches.prompt_message([ids]), **fields)
        ((_, name),) = prompt_prefix.metadata(request, SECRET)
        return name

    assert seen["generate"] == seen["others"] == named(long)
    assert seen["moved"] == named([1, *long]) != named(long)
    assert seen["salted"] == named(long, cache_salt="mine") != named(long)
    for call in ("stream", "padded", "score", "openSession", "validate"):
        assert seen[call] == named(long)
    assert seen["short"] is seen["info"] is seen["silent"] is None
    off = probe("prefix", built, LOCKSTEP_PREFIX_ROUTING="off")
    assert set(off.values()) == {None}
    unnamed = probe("prefix", built)
    assert unnamed["generate"] == unnamed["others"] != seen["generate"]


async def test_both_sides_show_their_certificates(built: Path, tmp_path: Path):
    authority = trustme.CA()
    of_server, of_client = authority.issue_cert("localhost"), authority.issue_cert("client.test")
    for name, data in (
        ("ca", authority.cert_pem),
        ("server", of_server.cert_chain_pems[0]),
        ("server.key", of_server.private_key_pem),
        ("client", of_client.cert_chain_pems[0]),
        ("client.key", of_client.private_key_pem),
    ):
        data.write_to_path(tmp_path / name)
    settings = {
        "tls_certificate": tmp_path / "server",
        "tls_key": tmp_path / "server.key",
        "tls_client_ca": tmp_path / "ca",
    }
    service = Failing()
    async with running(service, **settings) as (server, _):
        ca = {"CA": str(tmp_path / "ca"), "RETRIES": "0"}
        own = {"CERTIFICATE": str(tmp_path / "client"), "KEY": str(tmp_path / "client.key")}
        assert await _call(built, server.port, "encode", **ca, **own) is None
        without = await _call(built, server.port, "encode", **ca)
    assert (without["name"], service.calls) == ("ConnectionFailed", 1)


async def test_a_token_says_who_calls(built: Path, tmp_path: Path):
    principals = write_principals(tmp_path / "principals.toml", {"alice": {"roles": ["inference"]}})
    service = Failing()
    async with running(service, principals=principals) as (server, _):
        assert await _call(built, server.port, "encode", TOKEN="alice\n") is None
        unknown = await _call(built, server.port, "encode", TOKEN="eve")
        denied = await _call(built, server.port, "vocabulary", TOKEN="alice")
    assert (unknown["reason"], unknown["metadata"]["cause"]) == ("UNAUTHENTICATED", "unknown")
    assert (denied["reason"], denied["metadata"]["role"]) == ("PERMISSION_DENIED", "info")
    assert service.calls == 1


def test_methods_that_are_repeated_are_those_of_the_python_client(built: Path):
    paths = [f"/{name[::-1].replace('.', '/', 1)[::-1]}" for name in sorted(IDEMPOTENT_METHODS)]
    others = ["/lockstep.v1.LogitsSessionService/Step", "/lockstep.v1.LogitsSessionService/Fork"]
    script = (
        "import('./dist/src/transport/retries.js').then(({ isIdempotent }) =>"
        f" console.log(JSON.stringify({json.dumps([*paths, *others])}.filter(isIdempotent))))"
    )
    assert json.loads(run(["node", "-e", script], built)) == paths


def test_calls_of_a_service_that_refuses_everything_are_soon_made_once(built: Path):
    script = """
        import { Attempts, Throttle } from "./dist/src/transport/retries.js";
        import { ServiceError } from "./dist/src/errors.js";
        const throttle = new Throttle(3);
        const full = (metadata = { limit: "1" }) =>
          new ServiceError("Full.", { reason: "OVERLOADED", metadata, retryDelayMs: 60_000 });
        const attemptsOf = (error) => {
          const attempts = new Attempts(throttle, true, 3, Infinity);
          for (let count = 1; ; count++) try { attempts.pauseMs(error); } catch { return count; }
        };
        const refused = () => {
          try { throttle.check("/m"); return false; } catch { return true; }
        };
        const counts = Array.from({ length: 4 }, () => attemptsOf(full()));
        const before = refused();
        throttle.note("/m", full());
        const after = refused();
        for (let call = 0; call < 100; call++) throttle.succeed();
        const busy = Array.from({ length: 4 }, () => attemptsOf(full({})));
        console.log(JSON.stringify({ counts, before, after, again: refused(), busy }));
    """
    seen = json.loads(run(["node", "--input-type=module", "-e", script], built))
    assert seen["counts"] == [4, 3, 1, 1]  # as in Python: a first refusal does not count
    assert (seen["before"], seen["after"], seen["again"]) == (False, True, False)
    assert seen["busy"] == [4] * 4  # room on the connection is no load of the service
