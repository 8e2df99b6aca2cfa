"""The container files, against the tree and the settings they stand on."""

import re
from pathlib import Path

import pytest

from model_service.front.settings import ModelSettings
from rpc.settings import ServerSettings
from tests.unit.test_architecture import requirements
from tokenizer_service.settings import TokenizerSettings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, type[ServerSettings]] = {"tokenizer": TokenizerSettings, "model": ModelSettings}

Instruction = tuple[str, str]


def instructions(service: str) -> list[Instruction]:
    text = (ROOT / "deploy" / "containers" / f"{service}.Containerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def arguments(service: str, word: str) -> list[str]:
    return [rest for each, rest in instructions(service) if each == word]


def environment(service: str) -> dict[str, str]:
    pairs = " ".join(arguments(service, "ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.parametrize("service", SERVICES)
def test_the_last_stage_runs_the_service_as_a_user_without_rights(service):
    words = instructions(service)
    assert words[-1] == ("ENTRYPOINT", f'["python", "-m", "{service}_service"]')
    assert arguments(service, "USER") == ["10001:10001"]  # a number, for runAsNonRoot
    last_stage = max(index for index, (word, _) in enumerate(words) if word == "FROM")
    assert ("USER", "10001:10001") in words[last_stage:]


@pytest.mark.parametrize("service", SERVICES)
def test_base_image_and_certificates_are_the_builders_choice(service):
    assert any(each.startswith("BASE_IMAGE=") for each in arguments(service, "ARG"))
    assert "PIP_CERT" in arguments(service, "ARG")
    assert {each.split()[0] for each in arguments(service, "FROM")} == {"${BASE_IMAGE}"}


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is_and_has_a_bill_of_materials(service):
    (labels,) = arguments(service, "LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert any("cyclonedx-py environment" in each for each in arguments(service, "RUN"))


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_those_of_the_settings(service):
    settings = SERVICES[service]()
    expected = f"{settings.port} {settings.health_port} {settings.metrics_port}"
    assert arguments(service, "EXPOSE") == [expected]


@pytest.mark.parametrize("service", SERVICES)
def test_variables_are_settings_and_files_go_to_volumes(service):
    variables = environment(service)
    prefix = SERVICES[service].model_config["env_prefix"]
    values = {
        name.removeprefix(prefix).lower(): value
        for name, value in variables.items()
        if name.startswith(prefix)
    }
    SERVICES[service](**values)
    (volumes,) = arguments(service, "VOLUME")
    for name, value in variables.items():
        if found := re.search(r"(?<!/)(/{1,2}(?:cache|store))\b", value):
            assert f'"{"/" + found[1].strip("/")}"' in volumes, name
    assert "/cache" in variables["LOCKSTEP_CACHE"]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_is_in_the_build_context(service):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for copy in arguments(service, "COPY"):
        if copy.startswith("--from"):
            continue
        for name in copy.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


def test_the_tokenizer_image_asks_for_no_torch():
    (install,) = [each for each in arguments("tokenizer", "RUN") if "lockstep/bin/pip" in each]
    assert "'.[tokenizer,otel]'" in install
    assert "torch" not in install
    groups = requirements(ROOT)
    assert "torch" not in {
        line.name for line in groups[None] + groups["tokenizer"] + groups["otel"]
    }
