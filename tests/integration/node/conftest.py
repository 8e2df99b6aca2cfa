"""The TypeScript client, built once for all tests of it."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.integration.node.package import build
from tests.services import Services


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, compiled, in a folder that processes of one run of the tests share."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "node-client", shared / "node-client.built"
    with (shared / "node-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            build(folder)
            done.touch()
    return folder


@pytest.fixture
def client(services: Services):
    """The Python client of the same services."""
    with services.client() as client:
        yield client
