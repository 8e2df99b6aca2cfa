"""Builds the TypeScript client and runs programs that use it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.services import ROOT

SOURCE = ROOT / "client" / "node"
PROBES = Path(__file__).with_name("probes")
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="needs Node.js and npm"
)


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Runs a program to its end and returns what it prints; skips the test without a registry."""
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if result.returncode and any(f"npm error code {word}" in result.stderr for word in UNREACHABLE):
        pytest.skip("needs the package registry of npm")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(folder: Path) -> None:
    """Compiles the client in a folder of its own, with its dependencies from the lock."""
    ignored = shutil.ignore_patterns("node_modules", "dist", "protos", "schema")
    shutil.copytree(SOURCE, folder, ignore=ignored, dirs_exist_ok=True)
    run(["npm", "ci"], folder)
    run(["npm", "run", "build"], folder, LOCKSTEP_PROTOS=str(ROOT / "protos"))


def probe(name: str, package: Path, **environment: str) -> Any:
    """Runs one of the probes with the client and returns what it has seen."""
    return json.loads(
        run(["node", str(PROBES / f"{name}.mjs"), str(package)], package, **environment)
    )


def start(name: str, package: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts one of the probes, which reads lines and prints them."""
    command = ["node", str(PROBES / f"{name}.mjs"), str(package)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **pipes)


def rectangle(tensor: dict[str, Any]) -> list[list[int]]:
    """Returns the rows of a printed tensor."""
    return np.reshape(tensor["data"], tensor["shape"]).tolist()
