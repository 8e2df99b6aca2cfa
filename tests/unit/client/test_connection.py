import re

import pytest

from lockstep_client import USE_DEFAULT, Lockstep, Tls
from lockstep_client._transport.endpoint import Endpoint


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
