"""The tiny Llama on the CPU, and on devices that are pretended."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model_service.engine.load import loader
from model_service.protocol import Cancel
from tests.checkpoint_factory import make_checkpoint
from tests.engine_harness import InprocEngine
from tests.fakes import pretend_device, pretend_models
from tests.fakes.device_costs import Costs

from . import kinds

GIB = 2**30
STEP_BYTES = 3 << 20

SETTINGS = {
    "max_running_sequences": 64,
    "max_session_rows": 16,
    "logits_processors": (kinds.__name__,),
    "attention": "sdpa",  # Triton's interpreter takes pointers, which nothing stands behind here
}

Start = Callable[..., InprocEngine]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("pretended") / "llama", "llama")


@pytest.fixture(scope="session")
def on_cpu(folder: Path) -> InprocEngine:
    """The engine whose answers are the right ones. Nothing may grow it."""
    return InprocEngine(folder, **SETTINGS)


@pytest.fixture
def free_bytes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free on the devices, which a test may change."""
    free = {"cuda:0": 139 * GIB, "cuda:1": 139 * GIB}

    def mem_get_info(device: object) -> tuple[int, int]:
        return free[str(pretend_device.gpu(device))], 139 * GIB

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: GIB + STEP_BYTES)
    return free


@pytest.fixture
def costs(free_bytes: dict[str, int]) -> Iterator[Costs]:
    with pretend_device.pretending() as counted:
        yield counted


@pytest.fixture
def start(folder: Path, costs: Costs, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts engines whose model is on pretended devices."""
    load = loader._load_weights

    def started(device_map: dict[str, str], folder: Path = folder, **settings) -> InprocEngine:
        def placed(folder, settings):
            model = load(folder, settings)
            pretend_models.place(model, device_map)
            return model

        monkeypatch.setattr(loader, "_load_weights", placed)
        return InprocEngine(folder, **SETTINGS | settings)

    return started


@pytest.fixture(scope="session")
def started() -> dict[object, InprocEngine]:
    """Engines that were started once for all tests."""
    return {}


@pytest.fixture
def served(start: Start, started: dict[object, InprocEngine]) -> Start:
    """Returns engines with nothing under way, which other tests have used. Nothing may grow one."""

    def of(device_map: dict[str, str], *folder: Path) -> InprocEngine:
        key = (*sorted(device_map.items()), *folder)
        engine = started.get(key) or started.setdefault(key, start(device_map, *folder))
        for request_id in range(1, engine._next_id + 1):
            engine.handle(Cancel(request_id))
        engine.drain()
        return engine

    return of


@pytest.fixture
def gpus(free_bytes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Two GPUs that are found, as far as settings and accelerate look for them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return free_bytes
