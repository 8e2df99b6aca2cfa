"""Services that several modules of tests share: they take seconds to start."""

import pytest

from tests.checkpoint_factory import make_checkpoint
from tests.compiled_code import compiled_code as compiled_code
from tests.compiled_code import compiling as compiling
from tests.integration.model_process import model_process


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A tiny llama with 320 ids and a context of 256 tokens."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint, tmp_path_factory):
    """A model service with the tiny checkpoint, in fp32."""
    folder = tmp_path_factory.mktemp("model_service")
    flags = ["--dtype", "fp32", "--max-response-bytes", str(2**20), "--max-sessions", "8"]
    flags += ["--max-streamed-step-bytes", str(2 * 2**20)]
    with model_process(tiny_checkpoint, folder, *flags) as service:
        yield service
