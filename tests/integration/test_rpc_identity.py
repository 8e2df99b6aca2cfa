"""Who may call a real server, whatever it serves."""

import asyncio
import urllib.request
from urllib.error import HTTPError

import grpc
import pytest
import structlog
import trustme
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from rpc import identity
from rpc.identity import watched_file
from tests.callers import bearer, write_principals
from tests.integration.rpc_probe import SERVICE, failure, running
from tests.integration.test_rpc_metrics import scrape, until_logged
from tests.integration.test_rpc_tls import Empty, Files, connected

REQUEST = messages.EncodeRequest()
PRINCIPALS = {
    "alice": {"roles": ["inference"], "certificates": ["alice@lockstep.test"]},
    "watcher": {"roles": ["metrics"]},
}


class Naming(services.TokenizerServiceServicer):
    """Keeps the names of its callers."""

    def __init__(self):
        self.callers = []

    async def Encode(self, request, context):
        self.callers.append(identity.caller())
        return messages.EncodeResponse()

    async def EncodeStream(self, request_iterator, context):
        async for _ in request_iterator:
            self.callers.append(identity.caller())
            yield messages.EncodeStreamResponse()


@pytest.fixture
def principals(tmp_path):
    return write_principals(tmp_path / "principals.toml", PRINCIPALS)


def scrape_with(server, token=None):
    """Returns the status of `/metrics`."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status
    except HTTPError as error:
        return error.code


async def test_the_code_of_a_call_and_its_line_know_the_caller(principals):
    naming = Naming()
    async with running(naming, capture=False, principals=principals) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        with structlog.testing.capture_logs() as log:
            await stub.Encode(REQUEST, metadata=bearer("alice"))
            stream = stub.EncodeStream(
                iter([messages.EncodeStreamRequest()]), metadata=bearer("alice")
            )
            assert len([response async for response in stream]) == 1
            await failure(
                stub.GetTokenizerInfo(messages.GetTokenizerInfoRequest(), metadata=bearer("alice"))
            )
            await failure(stub.Encode(REQUEST))
            await until_logged(log, 4)
    assert naming.callers == ["alice"] * 2
    assert [line.get("principal") for line in log] == ["alice", "alice", "alice", None]
    assert [line.get("reason") for line in log][2:] == ["PERMISSION_DENIED", "UNAUTHENTICATED"]


async def test_a_stranger_is_refused_before_the_request_is_read(principals):
    async with running(Naming(), principals=principals, ready=False) as (_, channel):
        for metadata in ((), bearer("garbage")):
            call = channel.unary_unary(f"/{SERVICE}/Encode")
            answer = await failure(call(b"\xff\xff", metadata=metadata))
            assert answer.code is grpc.StatusCode.UNAUTHENTICATED
            assert answer.retry is None
        call = channel.unary_unary(f"/{SERVICE}/Encode")
        answer = await failure(call(b"\xff\xff", metadata=bearer("alice")))
        assert answer.reason == "LOADING"


async def test_callers_without_credentials_have_what_the_operator_says(principals):
    settings = {"principals": principals, "allow_anonymous": "info"}
    async with running(Empty(), **settings) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        info = await failure(stub.GetTokenizerInfo(messages.GetTokenizerInfoRequest()))
        assert info.reason == "NOT_IMPLEMENTED"  # it was let in
        refused = await failure(stub.Encode(REQUEST))
        assert refused.metadata == {"cause": "missing", "role": "inference"}
        assert "--allow-anonymous" in refused.message


async def test_a_token_that_is_added_to_the_file_is_taken_without_a_restart(
    principals, monkeypatch
):
    monkeypatch.setattr(watched_file, "_LOOK_INTERVAL_S", 0.05)
    async with running(Empty(), principals=principals) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        assert (await failure(stub.Encode(REQUEST, metadata=bearer("bob")))).metadata["cause"] == (
            "unknown"
        )
        write_principals(principals, {**PRINCIPALS, "bob": {"roles": ["inference"]}})
        await asyncio.sleep(0.1)
        await stub.Encode(REQUEST, metadata=bearer("bob"))


async def test_metrics_are_for_those_who_have_their_role(principals):
    async with running(Empty(), principals=principals, allow_anonymous="none") as (server, _):
        statuses = [
            await asyncio.to_thread(scrape_with, server, token)
            for token in (None, "garbage", "alice", "watcher")
        ]
    assert statuses == [401, 401, 403, 200]


async def test_metrics_are_open_unless_the_operator_says_who_may_read_them(principals):
    async with running(Empty(), principals=principals) as (server, _):
        assert await asyncio.to_thread(scrape_with, server) == 200


async def test_a_certificate_gives_the_roles_of_its_principal(tmp_path, principals):
    authority = trustme.CA()
    files = Files(tmp_path)
    issued = authority.issue_cert("localhost")
    files.write_certificate(issued)
    files.write_key(issued)
    files.write(files.authority, authority.cert_pem.bytes())
    naming = Naming()
    settings = {**files.settings, "tls_client_ca": files.authority, "principals": principals}
    async with running(naming, host="localhost", **settings) as (server, _):
        async with connected(
            server, authority, authority.issue_cert("alice@lockstep.test")
        ) as stub:
            await stub.Encode(REQUEST)
            denied = await failure(stub.GetTokenizerInfo(messages.GetTokenizerInfoRequest()))
            assert denied.code is grpc.StatusCode.PERMISSION_DENIED
        async with connected(server, authority, authority.issue_cert("bob@lockstep.test")) as stub:
            assert (await failure(stub.Encode(REQUEST))).metadata["cause"] == "missing"
            await stub.Encode(REQUEST, metadata=bearer("alice"))
    assert naming.callers == ["alice", "alice"]


@pytest.mark.parametrize(
    ("settings", "event", "open_to_anyone"),
    [
        ({}, None, 0),
        ({"host": "0.0.0.0"}, "open_to_anyone", 1),
        ({"host": "0.0.0.0", "allow_anonymous": "inference,metrics"}, "open_to_anyone", 1),
        ({"admin_port": 0, "admin_host": "0.0.0.0"}, "open_to_anyone", 1),
        ({"host": "0.0.0.0", "principals": True}, "tokens_in_plain_text", 0),
    ],
)
async def test_a_server_that_strangers_reach_says_so(principals, settings, event, open_to_anyone):
    if "principals" in settings:
        settings = {**settings, "principals": principals}
    with structlog.testing.capture_logs() as log:
        async with running(Empty(), capture=False, **settings) as (server, _):
            samples = await scrape(server)
    assert [line["event"] for line in log if line["log_level"] == "warning"] == [event] * bool(
        event
    )
    assert samples["lockstep_open_to_anyone", "tests"] == open_to_anyone


async def test_nobody_may_call_a_server_that_strangers_reach_unless_the_operator_says_so():
    async with running(Empty(), host="0.0.0.0") as (_, channel):
        answer = await failure(services.TokenizerServiceStub(channel).Encode(REQUEST))
        assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    async with running(Empty(), host="0.0.0.0", allow_anonymous="inference") as (_, channel):
        await services.TokenizerServiceStub(channel).Encode(REQUEST)
