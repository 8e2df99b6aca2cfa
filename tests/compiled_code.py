"""Compiled code of the tests, made once in a session by whichever of its processes asks first."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_service.engine.run.decode_graph import compilation, decode_graphs
from model_service.engine.run.decode_graph.decode_graphs import DecodeGraphs
from tests.engine_harness import InprocEngine


@pytest.fixture(scope="session")
def compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of compiled code that all processes of the session share."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    if folder.name.startswith("popen-"):  # of one process of several
        folder = folder.parent
    return folder / "compiled_code"


@pytest.fixture(scope="module")
def compiling(compiled_code: Path) -> Iterator[None]:
    """Engines of the module's tests compile at once, unless what they need is in that folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_CACHE", str(compiled_code))
        patch.setattr(decode_graphs, "START_DELAY_S", 0.0)
        patch.setattr(compilation, "MODULE", "tests.fakes.impatient_compiler")
        yield


def graphs_of(engine: InprocEngine) -> DecodeGraphs:
    """Returns what compiles the steps of an engine."""
    return engine.engine._runner.graphs


def start(folder: Path, **settings: object) -> InprocEngine:
    """Starts an engine and waits until its graphs are ready, or are known not to be."""
    engine = InprocEngine(folder, decode_graphs="auto", max_running_sequences=12, **settings)
    while graphs_of(engine).is_preparing:
        graphs_of(engine).advance()
        time.sleep(0.01)
    return engine
