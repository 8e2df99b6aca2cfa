from lockstep_client import USE_DEFAULT, Tls
from lockstep_client._transport.endpoint import Endpoint


def test_none_means_no_timeout_and_is_not_the_default():
    endpoint = Endpoint("model", "localhost:1", timeout_s=3.0, stream_timeout_s=None)
    assert endpoint.unary_timeout_s(USE_DEFAULT) == 3.0
    assert endpoint.unary_timeout_s(None) is None
    assert endpoint.streaming_timeout_s(USE_DEFAULT) is None
    assert endpoint.streaming_timeout_s(7.0) == 7.0


def test_a_private_key_is_not_shown():
    assert "secret" not in repr(Tls(certificate=b"public", key=b"secret"))


def test_a_server_name_is_given_to_the_channel():
    endpoint = Endpoint("model", "127.0.0.1:1", Tls(server_name="model.internal"))
    assert ("grpc.ssl_target_name_override", "model.internal") in endpoint.options(streams=True)


def test_grpc_makes_second_attempts_of_calls_with_one_answer_only():
    endpoint = Endpoint("model", "localhost:1")
    assert ("grpc.enable_retries", 1) in endpoint.options(streams=False)
    assert ("grpc.enable_retries", 0) in endpoint.options(streams=True)
