import tempfile
from pathlib import Path

import pytest

from tests.durability import recorder


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """`recorder.cpp`, built."""
    return recorder.build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def memory_folder():
    """A folder in memory where there is one: states are opened thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder).resolve()
