import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from rpc.identity.roles import ALL_ROLES, Role
from rpc.settings import ServerSettings


class ExampleSettings(ServerSettings):
    """Settings of an example.

    A second paragraph that is for readers of the code.
    """

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_EXAMPLE_")

    port: int = Field(default=50099, ge=0, le=65535)
    """Where it listens."""

    store: str = "sqlite:///example.db"
    """Where it keeps things."""


def refused(capsys, arguments):
    """Returns the one line on stderr of a command line that must not start."""
    with pytest.raises(SystemExit) as exit_info:
        ExampleSettings.from_command_line(arguments)
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    return line


def test_a_flag_wins_over_its_variable_and_that_over_the_default(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_EXAMPLE_HOST", "::1")
    monkeypatch.setenv("LOCKSTEP_EXAMPLE_HEALTH_PORT", "7")
    settings = ExampleSettings.from_command_line(["--health-port", "8"])
    assert (settings.host, settings.health_port, settings.port) == ("::1", 8, 50099)


def test_a_flag_takes_its_value_after_a_space_or_an_equals_sign():
    assert ExampleSettings.from_command_line(["--port=1"]).port == 1
    assert ExampleSettings.from_command_line(["--port", "1"]).port == 1


def test_a_switch_can_be_turned_on_and_off():
    assert ExampleSettings.from_command_line(["--reflection"]).reflection
    assert not ExampleSettings.from_command_line(["--no-reflection"]).reflection


@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--por", "1"], ["--health_port", "1"]])
def test_an_unknown_flag_is_refused(capsys, arguments):
    line = refused(capsys, arguments)
    assert line.endswith(f": unrecognized arguments: {' '.join(arguments)}")


def test_an_unknown_variable_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_EXAMPLE_PROT", "1")
    line = refused(capsys, [])
    assert line.endswith(": unrecognized environment variables: LOCKSTEP_EXAMPLE_PROT")


def test_a_variable_added_by_kubernetes_is_explained(capsys, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_EXAMPLE_SERVICE_HOST", "10.0.0.1")
    assert "enableServiceLinks: false" in refused(capsys, [])


def test_a_variable_of_another_service_is_none_of_ours(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", "elsewhere")
    monkeypatch.setenv("LOCKSTEP_OTHER_PORT", "1")
    assert ExampleSettings.from_command_line([]).port == 50099


def test_every_wrong_value_is_named_where_it_came_from(capsys, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_EXAMPLE_PORT", "tcp://10.0.0.1:50051")
    line = refused(capsys, ["--log-level", "loud"])
    assert "LOCKSTEP_EXAMPLE_PORT: input should be a valid integer" in line
    assert "--log-level: input should be 'debug'" in line


def test_a_certificate_without_its_key_is_refused(capsys, tmp_path):
    certificate = tmp_path / "tls.crt"
    certificate.touch()
    line = refused(capsys, ["--tls-certificate", str(certificate)])
    assert line.endswith(": --tls-certificate and --tls-key go together")


def test_a_client_authority_without_tls_is_refused(capsys, tmp_path):
    authority = tmp_path / "ca.crt"
    authority.touch()
    assert "--tls-client-ca needs" in refused(capsys, ["--tls-client-ca", str(authority)])


def test_a_file_that_does_not_exist_is_refused(capsys):
    assert "--tls-key: path does not point to a file" in refused(capsys, ["--tls-key", "/none"])


def test_help_lists_every_setting_with_description_and_default(capsys):
    with pytest.raises(SystemExit) as exit_info:
        ExampleSettings.from_command_line(["--help"])
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in ExampleSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
        described = f"{' '.join(field.description.split())} (default: {field.default})"
        assert described in text
    assert "Settings of an example." in text
    assert "LOCKSTEP_EXAMPLE_LOG_LEVEL" in text


def test_settings_are_frozen_and_take_no_unknown_field():
    settings = ExampleSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ExampleSettings(prot=1)


def test_passwords_do_not_reach_the_log():
    settings = ExampleSettings(store="postgresql://lockstep:hunter2@db:5432/vocabulary")
    assert settings.loggable()["store"] == "postgresql://***@db:5432/vocabulary"
    assert ExampleSettings().loggable()["store"] == "sqlite:///example.db"


# --- Who may call --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        ([], ALL_ROLES),
        (["--host=::1"], ALL_ROLES),
        (["--host=localhost"], ALL_ROLES),
        (["--host=127.1.2.3"], ALL_ROLES),
        (["--host=0.0.0.0"], {Role.METRICS}),
        (["--host=::"], {Role.METRICS}),
        (["--host=lockstep.internal"], {Role.METRICS}),
        (["--admin-port=1", "--admin-host=0.0.0.0"], {Role.METRICS}),
        (["--host=0.0.0.0", "--allow-anonymous=inference,info"], {Role.INFERENCE, Role.INFO}),
        (["--host=0.0.0.0", "--allow-anonymous=all"], ALL_ROLES),
        (["--allow-anonymous=none"], set()),
        (["--allow-anonymous="], set()),
        (["--principals=/etc/passwd"], {Role.METRICS}),
    ],
)
def test_callers_without_credentials_may_do_everything_at_home_and_nothing_elsewhere(
    arguments, roles
):
    assert ExampleSettings.from_command_line(arguments).anonymous_roles == roles


def test_a_role_that_does_not_exist_is_refused_with_those_that_do(capsys):
    line = refused(capsys, ["--allow-anonymous=inference,admin"])
    assert "--allow-anonymous: there is no role 'admin'; roles are inference, " in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--jwt-keys=/etc/passwd"],
        ["--jwt-keys=/etc/passwd", "--jwt-issuer=a"],
        ["--jwt-audience=a"],
    ],
)
def test_web_tokens_are_of_an_issuer_and_for_an_audience(capsys, arguments):
    assert "--jwt-keys, --jwt-issuer and --jwt-audience go together" in refused(capsys, arguments)
