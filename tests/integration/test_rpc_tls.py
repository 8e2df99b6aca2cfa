"""Transport security with real certificates, made in the test."""

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import grpc
import pytest
import structlog
import trustme
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from rpc import identity
from tests.integration.rpc_probe import failure, running
from tests.integration.test_rpc_metrics import scrape, until_logged


class Empty(services.TokenizerServiceServicer):
    async def Encode(self, request, context):
        return messages.EncodeResponse()


class Files:
    """The files that an operator, or cert-manager, puts before a service."""

    def __init__(self, folder):
        self.certificate = folder / "tls.crt"
        self.key = folder / "tls.key"
        self.authority = folder / "ca.crt"

    def write(self, path, data):
        """Replaces a file in one step, as a Kubernetes volume does."""
        new = path.with_suffix(".new")
        new.write_bytes(data)
        os.replace(new, path)

    def write_certificate(self, issued):
        self.write(self.certificate, b"".join(each.bytes() for each in issued.cert_chain_pems))

    def write_key(self, issued):
        self.write(self.key, issued.private_key_pem.bytes())

    @property
    def settings(self):
        return {"tls_certificate": self.certificate, "tls_key": self.key}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(tmp_path, authority):
    written = Files(tmp_path)
    issued = authority.issue_cert("localhost", "first.test")
    written.write_certificate(issued)
    written.write_key(issued)
    written.write(written.authority, authority.cert_pem.bytes())
    return written


@asynccontextmanager
async def connected(server, authority, client=None):
    """Yields a stub over TLS, with a certificate of the client's own when given one."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        client and client.private_key_pem.bytes(),
        client and b"".join(each.bytes() for each in client.cert_chain_pems),
    )
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
        yield services.TokenizerServiceStub(channel)


async def served_names(server, authority):
    """Makes a handshake and returns the names in the certificate that the server shows."""

    def shake():
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            return {name for _, name in secure.getpeercert()["subjectAltName"]}

    return await asyncio.to_thread(shake)


async def test_calls_work_over_tls_and_not_without(files, authority):
    async with running(Empty(), host="localhost", **files.settings) as (server, plaintext):
        async with connected(server, authority) as stub:
            assert await stub.Encode(messages.EncodeRequest()) == messages.EncodeResponse()
        answer = await failure(
            services.TokenizerServiceStub(plaintext).Encode(messages.EncodeRequest())
        )
        assert answer.code is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_takes_clients_of_its_authority_only(files, authority):
    known = authority.issue_cert("client@lockstep.test")
    stranger = trustme.CA().issue_cert("client@lockstep.test")
    settings = {**files.settings, "tls_client_ca": files.authority}
    async with running(Empty(), host="localhost", **settings) as (server, _):
        async with connected(server, authority, known) as stub:
            await stub.Encode(messages.EncodeRequest())
        for client in (None, stranger):
            async with connected(server, authority, client) as stub:
                answer = await failure(stub.Encode(messages.EncodeRequest()))
                assert answer.code is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_is_known_by_its_certificate(files, authority):
    callers = []

    class Listening(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            callers.append(identity.caller())
            return messages.EncodeResponse()

        async def EncodeStream(self, request_iterator, context):
            async for _ in request_iterator:
                callers.append(identity.caller())
                yield messages.EncodeStreamResponse()

    settings = {**files.settings, "tls_client_ca": files.authority}
    async with running(Listening(), host="localhost", capture=False, **settings) as (server, _):
        with structlog.testing.capture_logs() as log:
            for name in ("one@lockstep.test", "two@lockstep.test"):
                async with connected(server, authority, authority.issue_cert(name)) as stub:
                    await stub.Encode(messages.EncodeRequest())
                    async for _ in stub.EncodeStream(iter([messages.EncodeStreamRequest()])):
                        pass
            await until_logged(log, 4)
    assert [line["principal"] for line in log] == callers
    assert callers == ["one@lockstep.test"] * 2 + ["two@lockstep.test"] * 2
    async with running(Listening()) as (_, channel):
        await services.TokenizerServiceStub(channel).Encode(messages.EncodeRequest())
    assert callers[-1] == ""


async def test_a_renewed_certificate_is_served_without_a_restart(files, authority):
    async with (
        running(Empty(), host="localhost", **files.settings) as (server, _),
        connected(server, authority) as before,
    ):
        await before.Encode(messages.EncodeRequest())
        assert "first.test" in await served_names(server, authority)
        renewed = authority.issue_cert("localhost", "second.test")
        files.write_key(renewed)
        files.write_certificate(renewed)
        assert "second.test" in await served_names(server, authority)
        await before.Encode(messages.EncodeRequest())  # connections go on


async def test_a_pair_that_is_half_written_leaves_the_old_one_in_use(files, authority):
    async with running(Empty(), host="localhost", **files.settings) as (server, _):
        renewed = authority.issue_cert("localhost", "second.test")
        files.write_certificate(renewed)
        assert "first.test" in await served_names(server, authority)
        files.key.unlink()
        assert "first.test" in await served_names(server, authority)
        files.write_key(renewed)
        assert "second.test" in await served_names(server, authority)


async def test_a_removed_client_authority_is_no_longer_trusted(files, authority):
    old = trustme.CA()
    client = old.issue_cert("client@lockstep.test")
    files.write(files.authority, old.cert_pem.bytes())
    settings = {**files.settings, "tls_client_ca": files.authority}
    async with running(Empty(), host="localhost", **settings) as (server, _):
        async with connected(server, authority, client) as stub:
            await stub.Encode(messages.EncodeRequest())
        files.write(files.authority, authority.cert_pem.bytes())
        async with connected(server, authority, client) as stub:
            assert (await failure(stub.Encode(messages.EncodeRequest()))).code is (
                grpc.StatusCode.UNAVAILABLE
            )


async def test_a_key_of_another_certificate_stops_the_start(files, authority):
    files.write_key(authority.issue_cert("localhost"))
    with pytest.raises(ssl.SSLError, match=r"(?i)key.values.mismatch"):
        async with running(Empty(), **files.settings):
            pass


async def test_the_end_of_the_certificate_in_the_file_is_a_metric(files, authority):
    end = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    async with running(Empty(), host="localhost", **files.settings) as (server, _):
        before = await expiry(server)
        issued = authority.issue_cert("localhost", not_after=end)
        files.write_certificate(issued)
        assert await expiry(server) == end.timestamp() != before


async def expiry(server):
    samples = await scrape(server)
    return samples["lockstep_certificate_expiry_timestamp_seconds", "tests"]
