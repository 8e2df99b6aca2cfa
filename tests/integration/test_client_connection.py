"""How the client meets servers that are away, slow, not ready, or want a certificate."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services_pb

from lockstep_client import (
    AsyncLockstep,
    ConnectionFailed,
    DeadlineExceeded,
    Lockstep,
    ProtocolError,
    Tls,
    exceptions,
)
from rpc import errors
from tests.callers import write_principals
from tests.integration.rpc_probe import running
from tests.ports import free_port
from tests.services import Services


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


class Counting(services_pb.TokenizerServiceServicer):
    """Counts calls, and fails the first ones."""

    def __init__(self, *failures: errors.ServiceError):
        self.failures = list(failures)
        self.calls = 0

    async def Encode(self, request, context):
        return self._answer(messages.EncodeResponse())

    async def GetTokenizerInfo(self, request, context):
        return self._answer(messages.GetTokenizerInfoResponse(model_type="BPE"))

    def _answer(self, response):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return response


@pytest.mark.parametrize(
    ("prompts", "options", "expected"),
    [
        ([[]], {}, exceptions.InvalidField),
        ([[5, 320]], {}, exceptions.TokenIdOutOfRange),
        ([[5, -1]], {}, exceptions.TokenIdOutOfRange),
        ([[5] * 257], {}, exceptions.ContextLengthExceeded),
        ([[5]], {"max_new_tokens": 256}, exceptions.ContextLengthExceeded),
        ([[5]], {"do_sample": True, "temperature": float("nan")}, exceptions.InvalidField),
        ([[5]], {"do_sample": True, "top_k": -1}, exceptions.InvalidField),
        ({"input_ids": [[5, 6]], "attention_mask": [[1]]}, {}, exceptions.InvalidField),
        ({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]}, {}, exceptions.InvalidField),
    ],
    ids=[
        "empty prompt",
        "id beyond the vocabulary",
        "negative id",
        "prompt beyond the context",
        "new tokens beyond the context",
        "NaN temperature",
        "negative top_k",
        "mask of another shape",
        "row without a token",
    ],
)
def test_a_bad_request_is_the_exception_of_its_reason(client: Lockstep, prompts, options, expected):
    with pytest.raises(exceptions.ServiceError) as raised:
        client.model.generate(prompts, **options)
    assert type(raised.value) is expected
    assert raised.value.metadata
    assert raised.value.retry_delay_s is None


def test_every_field_that_is_wrong_is_named(client: Lockstep):
    with pytest.raises(exceptions.InvalidField) as raised:
        client.model.generate([[5]], do_sample=True, temperature=-1.0, top_p=2.0)
    assert {v.field for v in raised.value.violations} == {
        "temperature",
        "top_p",
    }


def test_a_session_that_does_not_exist_is_not_found(client: Lockstep):
    session = client.model.open_session([[5, 6]])
    session.close()
    with pytest.raises(exceptions.SessionNotFound, match="closed by this client"):
        session.step([[7]])
    with pytest.raises(exceptions.SessionNotFound, match="closed by this client"):
        session.touch()


def test_a_step_from_another_position_is_refused_and_changes_nothing(client: Lockstep):
    with client.model.open_session([[5, 6]]) as session:
        behind = session._copy(session.session_id, ())
        session.step([7])
        with pytest.raises(exceptions.PositionConflict) as raised:
            behind.step([8])
        assert raised.value.metadata["currentPosition"] == "3"
        assert session.token_ids() == [[5, 6, 7]]


def test_a_message_that_is_too_large_states_size_and_limit(client: Lockstep):
    with pytest.raises(exceptions.MessageTooLarge) as raised:
        client.tokenizer.encode("x" * 5_000_000)
    assert int(raised.value.metadata["messageBytes"]) > int(raised.value.metadata["limitBytes"])


def test_ids_of_another_vocabulary_are_refused(client: Lockstep):
    batch = client.tokenizer.encode("abc")
    foreign = type(batch.vocabulary)("tiny-llama", 0, "ab" * 32, batch.vocabulary.size)
    with pytest.raises(exceptions.VocabularyMismatch):
        client.model.generate(batch, vocabulary=foreign)


def test_a_service_that_is_away_is_named_with_its_address():
    address = f"localhost:{free_port()}"
    with (
        Lockstep(model=address) as client,
        pytest.raises(ConnectionFailed, match=f"the model service at {address}: .*refused"),
    ):
        client.model.info()


def test_waiting_ends_with_the_reason_once_time_is_up():
    with Lockstep(tokenizer=f"localhost:{free_port()}") as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed):
            client.wait_until_ready(timeout=1.0)
        assert 1.0 <= time.monotonic() - began < 3.0


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda client: client.model.info(), "model"),
        (lambda client: client.model.generate([[5]]), "model"),
        (lambda client: list(client.model.stream([[5]])), "model"),
        (lambda client: client.model.open_session([[5]]), "model"),
        (lambda client: client.tokenizer.encode("x"), "tokenizer"),
        (lambda client: list(client.vocabulary.revisions()), "tokenizer"),
        (lambda client: client.wait_until_ready(5.0), "tokenizer"),
    ],
    ids=["info", "generate", "stream", "open_session", "encode", "revisions", "wait"],
)
def test_swapped_addresses_are_told_from_the_services_that_answer(services, call, expected):
    addresses = {"model": services.tokenizer.address, "tokenizer": services.model.address}
    found = "tokenizer" if expected == "model" else "model"
    with (
        Lockstep(**addresses) as client,
        pytest.raises(
            ProtocolError,
            match=f"^{addresses[expected]} is a {found} service; the {expected} service was "
            "expected there",
        ),
    ):
        call(client)


def test_a_host_that_does_not_exist_is_said_to_be_none():
    with (
        Lockstep(model="lockstep.invalid:50052") as client,
        pytest.raises(ConnectionFailed, match="there is no host of that name"),
    ):
        client.model.info()


def test_a_call_that_takes_too_long_is_given_up_and_freed(client: Lockstep):
    client.model.info()  # connects, which takes time too
    limit = re.escape(" s (`timeout` of the call, or `stream_timeout` of the client)")
    left = r"0\.(1|0\d+)"  # some of it went by before the request was sent
    with pytest.raises(DeadlineExceeded, match=f"the model service at .* within {left}{limit}"):
        client.model.generate([[5]], max_new_tokens=250, eos_token_id=[], timeout=0.1)
    limit = "within 1e-06 s (`timeout` of the call, or `timeout` of the client)"
    with pytest.raises(DeadlineExceeded, match=re.escape(limit)):
        client.model.info(timeout=1e-6)
    deadline = time.monotonic() + 10.0
    while client.model.load().running_sequence_count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_service_that_is_not_ready_is_asked_again_after_the_time_it_states():
    servicer = Counting(errors.StoreUnavailable())  # states one second
    async with (
        running(servicer) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as client,
    ):
        began = time.monotonic()
        await client.tokenizer.info()
        assert servicer.calls == 2
        assert 0.9 < time.monotonic() - began < 2.0


async def test_a_service_that_stays_away_is_asked_four_times():
    servicer = Counting(*[errors.VocabularyBehind(request_revision=2, server_revision=1)] * 9)
    async with (
        running(servicer) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(exceptions.VocabularyBehind) as raised:
            await client.tokenizer.encode("abc")
        assert servicer.calls == 4
        assert raised.value.retry_delay_s == 0.25


async def test_a_service_that_is_overloaded_is_asked_again():
    servicer = Counting(errors.Overloaded("calls", 8, retry_delay_s=0.2))
    async with (
        running(servicer) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as client,
    ):
        began = time.monotonic()
        await client.tokenizer.encode("abc")
        assert servicer.calls == 2
        assert time.monotonic() - began >= 0.2


async def test_a_client_without_retries_raises_the_first_failure():
    servicer = Counting(errors.Overloaded("calls", 8, retry_delay_s=0.2))
    async with (
        running(servicer) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}", retries=0) as client,
    ):
        with pytest.raises(exceptions.Overloaded):
            await client.tokenizer.encode("abc")
        assert servicer.calls == 1


async def test_calls_that_a_new_connection_has_no_room_for_are_made_again():
    class Slow(services_pb.TokenizerServiceServicer):
        def Encode(self, request, context):
            time.sleep(0.01)
            return messages.EncodeResponse()

    # A plain server, without the headroom of ours: it refuses some of a burst.
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_concurrent_streams", 4)])
    services_pb.add_TokenizerServiceServicer_to_server(Slow(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with AsyncLockstep(tokenizer=f"127.0.0.1:{port}", retries=10) as client:
            await asyncio.gather(*(client.tokenizer.encode("x") for _ in range(300)))
    finally:
        await asyncio.to_thread(server.stop(None).wait)


async def test_a_thousand_calls_at_once_on_a_new_connection_all_succeed(services: Services):
    async with AsyncLockstep(tokenizer=services.tokenizer.address) as client:
        batches = await asyncio.gather(*(client.tokenizer.encode("x") for _ in range(1000)))
    assert len(batches) == 1000


async def test_more_generations_at_once_than_the_service_admits_all_succeed(services: Services):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses) as client:
        answers = await asyncio.gather(
            *(client.generate("x", max_new_tokens=4, eos_token_id=[]) for _ in range(150))
        )
    assert all(len(answer.token_ids) == 4 for answer in answers)


async def test_what_is_wrong_and_stays_wrong_is_asked_once():
    servicer = Counting(errors.InvalidField("items", "is empty"))
    async with (
        running(servicer) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(exceptions.InvalidField):
            await client.tokenizer.encode([])
        assert servicer.calls == 1


async def test_a_server_that_is_loading_is_waited_for():
    async with (
        running(Counting(), ready=False) as (server, _),
        AsyncLockstep(
            tokenizer=f"127.0.0.1:{server.port}", model=f"127.0.0.1:{server.port}"
        ) as client,
    ):
        with pytest.raises(exceptions.Loading):
            await client.wait_until_ready(timeout=0.5)


async def test_a_server_with_a_certificate_is_trusted_by_its_authority(tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("lockstep.test")
    (tmp_path / "tls.crt").write_bytes(b"".join(c.bytes() for c in issued.cert_chain_pems))
    (tmp_path / "tls.key").write_bytes(issued.private_key_pem.bytes())
    files = {"tls_certificate": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    async with running(Counting(), **files) as (server, _):
        address = f"127.0.0.1:{server.port}"
        trusting = Tls(ca=authority.cert_pem.bytes(), server_name="lockstep.test")
        async with AsyncLockstep(tokenizer=address, tls=trusting) as client:
            assert (await client.tokenizer.info()).model_type == "BPE"
        for tls, sentence in (
            (Tls(ca=other.cert_pem.bytes(), server_name="lockstep.test"), "authority"),
            (Tls(ca=authority.cert_pem.bytes()), "its certificate is for another name"),
            (Tls(ca=b"no PEM"), "each is the text of a PEM file"),
            (None, "it may ask for TLS"),
        ):
            async with AsyncLockstep(tokenizer=address, tls=tls) as client:
                with pytest.raises(ConnectionFailed, match=sentence):
                    await client.tokenizer.info()


async def test_a_server_without_tls_is_said_not_to_speak_it():
    async with (
        running(Counting()) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}", tls=Tls()) as client,
    ):
        with pytest.raises(ConnectionFailed, match="it does not speak TLS"):
            await client.tokenizer.info()


# --- Who calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Lockstep, AsyncLockstep])
async def test_a_client_shows_its_token_and_says_what_is_wrong_with_it(make, tmp_path):
    principals = write_principals(
        tmp_path / "principals.toml", {"alice": {"roles": ["info"]}, "bob": {"roles": []}}
    )
    token = tmp_path / "token"
    async with running(Counting(), principals=principals) as (server, _):

        async def info():
            client = make(
                tokenizer=f"localhost:{server.port}", token=token, token_in_plain_text=True
            )
            if make is AsyncLockstep:
                async with client:
                    return await client.tokenizer.info()
            with client:
                return await asyncio.to_thread(client.tokenizer.info)

        token.write_text("alice\n")
        assert (await info()).model_type == "BPE"
        token.write_text("eve\n")
        with pytest.raises(exceptions.Unauthenticated) as unknown:
            await info()
        assert unknown.value.metadata["cause"] == "unknown"
        token.write_text("bob\n")
        with pytest.raises(exceptions.PermissionDenied) as denied:
            await info()
        assert denied.value.metadata == {"role": "info"}


def test_scoring_has_the_time_of_a_stream(services: Services):
    with services.client(timeout=1e-4, stream_timeout=60.0) as client:
        assert client.model.score([[5, 6]])[0].logits_logprob < 0
    late = pytest.raises(exceptions.DeadlineExceeded, match="`stream_timeout` of the client")
    with services.client(stream_timeout=1e-4) as client, late:
        client.model.score([[5, 6]])
