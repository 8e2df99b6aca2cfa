import shutil

import pytest

from model_service.engine.run.decode_graph import operators


@pytest.fixture(scope="session")
def ops(tmp_path_factory: pytest.TempPathFactory):
    """Our operators, built for this machine."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    torch = pytest.importorskip("torch")
    if not operators.is_loaded():
        folder = tmp_path_factory.mktemp("operators")
        operators.build(folder)
        operators.load(folder)
    return torch.ops.lockstep
