"""The distributions as users install them: wheels, in environments that have nothing else."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from tests.services import ROOT, Services

PROBE = Path(__file__).with_name("python_client_probe.py")
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


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of all distributions."""
    folder = tmp_path_factory.mktemp("dist")
    for project in ("protos", "client/python", "."):
        run(sys.executable, "-m", "build", "--outdir", folder, project, cwd=ROOT)
    return folder


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
@pytest.mark.parametrize("version", PROTOBUF)
def test_the_client_answers_the_same_beside_each_protobuf(
    version: str, wheels: Path, services: Services, expected: dict[str, Any], tmp_path: Path
):
    programs = installed(tmp_path / "venv", wheels, "lockstep-client", f"protobuf=={version}")
    printed = run(programs / "python", PROBE, cwd=tmp_path, **services.environment)
    found = json.loads(printed)
    assert found.pop("protobuf") in SpecifierSet(f"=={version}")
    assert found == {name: value for name, value in expected.items() if name != "protobuf"}
