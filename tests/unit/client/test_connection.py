import re
from pathlib import Path

import pytest

from lockstep_client import USE_DEFAULT, Lockstep, Tls
from lockstep_client._transport.endpoint import Endpoint
from lockstep_client._transport.retries import Attempts, Throttle
from lockstep_client.exceptions import InvalidArgument


def test_none_means_no_timeout_and_is_not_the_default():
    endpoint = Endpoint("model", "localhost:1", timeout_s=3.0, stream_timeout_s=None)
    assert endpoint.unary_timeout_s(USE_DEFAULT) == 3.0
    assert endpoint.unary_timeout_s(None) is None
    assert endpoint.streaming_timeout_s(USE_DEFAULT) is None
    assert endpoint.streaming_timeout_s(7.0) == 7.0


def test_a_private_key_is_not_shown():
    assert "secret" not in repr(Tls(certificate=b"public", key=b"secret"))


def test_a_certificate_without_its_key_is_refused_before_grpc_ends_the_process():
    with pytest.raises(ValueError, match="given together"):
        Tls(key=b"key")


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "[::1]:50051",
        "dns:///tokenizer.internal:50051",
        "dns://1.1.1.1/tokenizer.internal:50051",
        "unix:///run/tokenizer.sock",
        "ipv4:10.0.0.1:1,10.0.0.2:1",
    ],
)
def test_an_address_is_host_and_port_or_a_target_of_grpc(address):
    assert Endpoint("tokenizer", address).address == address


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("http://localhost:50052", "http:// is not part of an address"),
        ("https://localhost:50052", "https:// is not part of an address"),
        ("localhost", "the port is missing"),
        ("localhost:", "the port is missing"),
        ("dns:///localhost", "the port is missing"),
        ("localhost:65536", "a port is from 1 to 65535"),
        ("localhost:http", "a host and a port cannot be read from it"),
        ("localhost:50052/v1", "a host and a port cannot be read from it"),
        ("::1", "a host and a port cannot be read from it"),
        ("", "a host and a port cannot be read from it"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_with_its_keyword(address, fault):
    with pytest.raises(ValueError, match=re.escape(fault)) as raised:
        Lockstep(model=address)
    assert str(raised.value).startswith(f"model={address!r}: ")
    assert str(raised.value).endswith("HOST:PORT, such as 'localhost:50052'.")


def test_a_server_name_is_given_to_the_channel():
    endpoint = Endpoint("model", "127.0.0.1:1", Tls(server_name="model.internal"))
    assert ("grpc.ssl_target_name_override", "model.internal") in endpoint.options(streams=True)


def test_grpc_makes_second_attempts_of_calls_with_one_answer_only():
    endpoint = Endpoint("model", "localhost:1")
    assert ("grpc.enable_retries", 1) in endpoint.options(streams=False)
    assert ("grpc.enable_retries", 0) in endpoint.options(streams=True)


# --- Bearer tokens -------------------------------------------------------------------------------


def test_a_token_is_shown_with_every_attempt_and_read_each_time(tmp_path):
    path = tmp_path / "token"
    counted = iter(["first", "second"])
    for token, expected in (
        ("given", ["given", "given"]),
        (path, ["one", "two"]),
        (lambda: next(counted), ["first", "second"]),
    ):
        path.write_text("one\n")
        attempts = Attempts(Throttle(), retries=0, idempotent=True, timeout_s=1, token=token)
        shown = [dict(attempts.metadata)["authorization"]]
        path.write_text("two\n")
        shown.append(dict(attempts.metadata)["authorization"])
        assert shown == [f"Bearer {each}" for each in expected]


def test_without_a_token_nothing_is_shown():
    attempts = Attempts(Throttle(), retries=0, idempotent=True, timeout_s=1)
    assert dict(attempts.metadata).keys() == {"x-request-id"}


def test_a_token_is_not_sent_in_plain_text_unless_that_is_allowed():
    with pytest.raises(ValueError, match="token_in_plain_text=True"):
        Lockstep(token="secret")
    Lockstep(token="secret", token_in_plain_text=True).close()
    Lockstep(token="secret", tls=Tls()).close()


def test_a_token_is_not_shown_in_a_representation():
    assert "secret" not in repr(Endpoint("model", "localhost:1", Tls(), token="secret"))


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("", ValueError),
        ("two words", ValueError),
        ("é", ValueError),
        (Path("/nowhere/token"), ValueError),
        (lambda: None, TypeError),
        (7, TypeError),
    ],
)
def test_what_cannot_be_a_token_is_refused_without_a_call(token, error):
    def call():
        with Lockstep("localhost:1", token=token, token_in_plain_text=True) as client:
            client.tokenizer.info()

    with pytest.raises(error, match="token") as refused:
        call()
    assert isinstance(refused.value, InvalidArgument)
