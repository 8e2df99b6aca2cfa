"""Settings of the model service."""

import os

import pytest
from pydantic import ValidationError

from model_service.front.settings import ModelSettings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LOCKSTEP_MODEL_")]:
        monkeypatch.delenv(name)


def test_the_ports_are_the_documented_ones():
    settings = ModelSettings()
    assert (settings.port, settings.health_port, settings.metrics_port) == (50052, 50152, 9452)


def test_a_variable_and_a_flag_have_the_same_name_and_the_flag_wins(monkeypatch):
    monkeypatch.delenv("LOCKSTEP_MODEL_TOKENIZER_ADDRESS", raising=False)
    usual = ModelSettings.from_command_line([])
    assert (usual.tokenizer_address, usual.awaits_tokenizer) == ("localhost:50051", False)
    assert ModelSettings.from_command_line(["--tokenizer-address=a:1"]).awaits_tokenizer
    monkeypatch.setenv("LOCKSTEP_MODEL_TOKENIZER_ADDRESS", "localhost:1")
    assert ModelSettings.from_command_line([]).awaits_tokenizer
    assert ModelSettings.from_command_line([]).tokenizer_address == "localhost:1"
    flags = ["--tokenizer-address", "localhost:2"]
    assert ModelSettings.from_command_line(flags).tokenizer_address == "localhost:2"


def test_a_misspelt_variable_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("LOCKSTEP_MODEL_THREDS", "2")
    with pytest.raises(SystemExit):
        ModelSettings.from_command_line([])
    assert "LOCKSTEP_MODEL_THREDS" in capsys.readouterr().err


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        ModelSettings().threads = 3


def test_a_call_that_could_never_be_admitted_is_a_mistake():
    with pytest.raises(ValidationError, match="max_sequences_per_call"):
        ModelSettings(max_running_sequences=4, max_waiting_sequences=4, max_sequences_per_call=9)


def test_a_default_time_to_live_beyond_the_longest_is_a_mistake():
    with pytest.raises(ValidationError, match="session_ttl_s"):
        ModelSettings(session_ttl_s=100, max_session_ttl_s=50)


def test_every_setting_is_described():
    fields = ModelSettings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("dtype", ["float32", "int8", ""])
def test_only_the_documented_types_are_known(dtype):
    with pytest.raises(ValidationError):
        ModelSettings(dtype=dtype)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_share_of_a_gpu_is_between_nothing_and_all(fraction):
    with pytest.raises(ValidationError):
        ModelSettings(gpu_memory_fraction=fraction)


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "[::1]:1", "lockstep.test:1"])
def test_a_token_is_not_shown_to_another_machine_in_plain_text(tmp_path, address):
    token = tmp_path / "token"
    token.write_text("secret")
    settings = {"tokenizer_address": address, "tokenizer_token_file": token}
    if address == "lockstep.test:1":
        with pytest.raises(ValidationError, match="--tokenizer-token-file needs"):
            ModelSettings(**settings)
        settings["tokenizer_tls_ca"] = token
    assert ModelSettings(**settings).tokenizer_token_file == token
