from pathlib import Path

import pytest
import torch

from model_service.engine.run.decode_graph import operators
from tests.compiled_code import compiled_code as compiled_code


@pytest.fixture(scope="session")
def ops(compiled_code: Path):
    """Our operators, built for this machine."""
    operators.load(operators.build_once(compiled_code))
    return torch.ops.lockstep
