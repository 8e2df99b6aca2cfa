import importlib
import json

from lockstep_client import USE_DEFAULT, Tls, connection
from lockstep_client.connection import Endpoint

SERVICE_MODULES = (
    "tokenizer_service",
    "vocabulary_admin_service",
    "model_service",
    "logits_session_service",
    "model_info_service",
)


def _methods() -> dict[str, set[str]]:
    return {
        service.full_name: set(service.methods_by_name)
        for module in SERVICE_MODULES
        for service in importlib.import_module(
            f"lockstep.v1.{module}_pb2"
        ).DESCRIPTOR.services_by_name.values()
    }


def test_retries_are_configured_for_methods_that_exist():
    methods = _methods()
    for service, names in connection.IDEMPOTENT_METHODS.items():
        assert set(names) <= methods[service]


def test_a_step_is_never_repeated_behind_the_callers_back():
    assert not {"OpenSession", "Step", "StepStream", "Fork", "SelectRows", "CloseSession"} & set(
        connection.IDEMPOTENT_METHODS["lockstep.v1.LogitsSessionService"]
    )


def test_only_a_service_that_is_away_is_asked_again():
    (config,) = json.loads(connection.SERVICE_CONFIG)["methodConfig"]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


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
    assert ("grpc.ssl_target_name_override", "model.internal") in endpoint.options()
