"""The distributions as users install them: wheels, in environments that have nothing else."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from rpc import distribution
from tests.services import ROOT, START_TIMEOUT_S, Services, running_process

PROJECTS = {"protos": "lockstep-protos", "client/python": "lockstep-client", ".": distribution.NAME}
PROBE = Path(__file__).with_name("python_client_probe.py")
TEXT = "Grüße aus 東京 🙂"
UNREACHABLE = ("NewConnectionError", "Connection refused", "No matching distribution found")

# The oldest and the newest release of each major version of protobuf.
PROTOBUF = ["5.26.1", "5.*", "6.30.0", "6.*", "7.34.0", "7.*"]

# Where the client and the stubs are in the repository.
SOURCES = os.pathsep.join([str(ROOT / "client/python"), str(ROOT / "protos/gen")])


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command without what this process adds to the path of Python; returns stdout."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if result.returncode and any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("needs the package registry of Python")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def described(project: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / project / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archives of all distributions and the wheels that are made from them."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    for project in PROJECTS:
        run(*build, project, cwd=ROOT)
    return folder


def wheel(wheels: Path, project: str) -> Path:
    (found,) = wheels.glob(f"{PROJECTS[project].replace('-', '_')}-*.whl")
    return found


def installed(folder: Path, wheels: Path, *requirements: str) -> Path:
    """Returns the programs of a new environment that has some requirements, ours as wheels."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--find-links", wheels, *requirements, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def expected(services: Services) -> dict[str, Any]:
    """What the client answers in the environment of the tests."""
    folder = services.checkpoint
    printed = run(sys.executable, PROBE, cwd=folder, PYTHONPATH=SOURCES, **services.environment)
    return json.loads(printed)


@pytest.mark.parametrize(("project", "name"), PROJECTS.items())
def test_all_distributions_have_their_names_and_one_version(project: str, name: str):
    table = described(project)["project"]
    assert (table["name"], table["version"]) == (name, described(".")["project"]["version"])
    package = json.loads((ROOT / "client" / "node" / "package.json").read_text())
    assert package["version"] == table["version"]


def test_an_index_would_take_every_archive(wheels: Path):
    assert len(list(wheels.iterdir())) == 2 * len(PROJECTS)
    run(sys.executable, "-m", "twine", "check", "--strict", *wheels.iterdir(), cwd=wheels)


@pytest.mark.parametrize("project", PROJECTS)
def test_a_wheel_has_every_file_of_its_packages(wheels: Path, project: str):
    packages = described(project)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *packages]
    files = run(*listed, cwd=ROOT / project).splitlines()
    (parent,) = {Path(package).parent for package in packages}
    names = set(zipfile.ZipFile(wheel(wheels, project)).namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == {Path(file).relative_to(parent).as_posix() for file in files}


@pytest.mark.parametrize("project", PROJECTS)
def test_license_and_readme_go_along(wheels: Path, project: str):
    name = described(project)["project"]["readme"]
    license_text, readme = ((ROOT / project / file).read_text() for file in ("LICENSE", name))
    assert license_text == (ROOT / "LICENSE").read_text()
    with zipfile.ZipFile(wheel(wheels, project)) as built:
        texts = {Path(name).name: built.read(name).decode() for name in built.namelist()}
    assert texts["LICENSE"] == license_text
    assert readme in texts["METADATA"]
    (archive,) = wheels.glob(f"{PROJECTS[project].replace('-', '_')}-*.tar.gz")
    with tarfile.open(archive) as source:
        assert {"LICENSE", name} <= {Path(name).name for name in source.getnames()}


@pytest.mark.parametrize("page", [*PROJECTS, "client/node"])
def test_the_page_of_an_index_leads_nowhere_that_only_the_repository_has(page: str):
    python = (ROOT / page / "pyproject.toml").exists()
    text = (
        ROOT / page / (described(page)["project"]["readme"] if python else "README.md")
    ).read_text()
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    places = re.findall(r"\]\(([^)]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    assert [place for pair in places for place in pair if place and "://" not in place] == []


@pytest.mark.slow
def test_services_and_client_answer_from_their_wheels(
    wheels: Path, services: Services, expected: dict[str, Any], tmp_path: Path
):
    folder = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", folder]
    run(*pip, *wheels.glob("*.whl"), cwd=tmp_path)
    alone = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    names = [path.name for path in folder.iterdir() if (path / "__init__.py").exists()]
    program = f"import {', '.join(names)}; print({', '.join(f'{n}.__file__' for n in names)})"
    printed = run(sys.executable, "-c", program, cwd=tmp_path, **alone).split()
    assert all(Path(file).is_relative_to(folder) for file in printed)
    assert len(printed) >= 8

    model = f"--model={services.checkpoint}"
    store = f"--store=sqlite:///{tmp_path / 'vocabulary.db'}"
    where = {"folder": tmp_path, "environment": alone}
    with running_process("tokenizer_service", model, store, **where) as tokenizer:
        flags = f"--tokenizer-address={tokenizer.address}", "--dtype=fp32", "--threads=1"
        with running_process("model_service", model, *flags, **where) as served:
            those = Services(services.checkpoint, tokenizer, served)
            with those.client() as client:
                client.wait_until_ready(START_TIMEOUT_S)
                versions = {each.info().server_version for each in (client.tokenizer, client.model)}
            printed = run(sys.executable, PROBE, cwd=tmp_path, **alone, **those.environment)
    assert json.loads(printed) == expected
    assert versions == {described(".")["project"]["version"]}


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_tokenizer_service_answers_where_nothing_else_is_installed(
    wheels: Path, services: Services, tmp_path: Path
):
    requirements = f"{distribution.NAME}[tokenizer]", "lockstep-client[cli]"
    programs = installed(tmp_path / "venv", wheels, *requirements)
    python = programs / "python"
    help_text = run(python, "-m", "tokenizer_service", "--help", cwd=tmp_path)
    assert "--model" in help_text
    flags = f"--model={services.checkpoint}", f"--store=sqlite:///{tmp_path / 'vocabulary.db'}"
    where = {"folder": tmp_path, "cwd": tmp_path, "environment": {"PYTHONPATH": ""}}
    with running_process("tokenizer_service", *flags, python=python, **where) as service:
        encode = [programs / "lockstep", "encode", TEXT, "--json"]
        printed = run(*encode, cwd=tmp_path, LOCKSTEP_TOKENIZER=service.address)
    with services.client() as client:
        assert json.loads(printed)["token_ids"] == client.tokenizer.encode(TEXT).token_ids


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_model_service_answers_where_nothing_else_is_installed(
    wheels: Path, services: Services, tmp_path: Path
):
    torch = f"torch=={version('torch').partition('+')[0]}"
    requirements = torch, f"{distribution.NAME}[model]", "lockstep-client[cli]"
    programs = installed(tmp_path / "venv", wheels, *requirements)
    model = f"--model={services.checkpoint}"
    flags = f"--tokenizer-address={services.tokenizer.address}", "--dtype=fp32", "--threads=1"
    where = {"folder": tmp_path, "cwd": tmp_path, "environment": {"PYTHONPATH": ""}}
    running = running_process("model_service", model, *flags, python=programs / "python", **where)
    with running as served:
        those = Services(services.checkpoint, services.tokenizer, served)
        run(programs / "lockstep", "wait", cwd=tmp_path, **those.environment)
        generate = [programs / "lockstep", "generate", TEXT, "-n", "8", "--greedy", "--json"]
        answer = json.loads(run(*generate, cwd=tmp_path, **those.environment))
    with services.client() as client:
        expected = client.generate(TEXT, max_new_tokens=8, do_sample=False)
    assert (answer["text"], answer["token_ids"]) == (expected.text, expected.token_ids)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_command_runs_without_an_installation(wheels: Path, services: Services, tmp_path: Path):
    programs = installed(tmp_path / "tools", wheels, "uv", "pipx")
    client = f"{wheel(wheels, 'client/python')}[cli]"
    uvx = [programs / "uvx", "--from", client, "--find-links", wheels, "--python", sys.executable]
    pipx = [programs / "pipx", "run", "--spec", client, f"--pip-args=--find-links={wheels}"]
    for tool in (uvx, pipx):
        environment = {**services.environment, "UV_CACHE_DIR": str(tmp_path / "uv")}
        environment["PIPX_HOME"] = str(tmp_path / "pipx")
        printed = run(*tool, "lockstep", "decode", "104", cwd=tmp_path, **environment)
        with services.client() as expected:
            assert printed.rstrip("\n") == expected.tokenizer.decode([104])


def test_the_client_answers_the_same_beside_the_oldest_protobuf(
    services: Services, expected: dict[str, Any], tmp_path: Path
):
    oldest = ["protobuf==5.26.1", "googleapis-common-protos==1.70.0"]
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path]
    run(*pip, *oldest, cwd=tmp_path)
    path = os.pathsep.join([str(tmp_path), SOURCES])
    found = json.loads(
        run(sys.executable, PROBE, cwd=tmp_path, PYTHONPATH=path, **services.environment)
    )
    assert found.pop("protobuf") == "5.26.1"
    assert found == {name: value for name, value in expected.items() if name != "protobuf"}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("release", PROTOBUF)
def test_the_client_answers_the_same_beside_each_protobuf(
    release: str, wheels: Path, services: Services, expected: dict[str, Any], tmp_path: Path
):
    programs = installed(tmp_path / "venv", wheels, "lockstep-client", f"protobuf=={release}")
    printed = run(programs / "python", PROBE, cwd=tmp_path, **services.environment)
    found = json.loads(printed)
    assert found.pop("protobuf") in SpecifierSet(f"=={release}")
    assert found == {name: value for name, value in expected.items() if name != "protobuf"}
