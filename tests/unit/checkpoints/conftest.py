import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives every test a cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOCKSTEP_CACHE", str(folder))
    return folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a model to everything that loads no weights."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 4}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}}))
    save_file({"weight": np.arange(6, dtype=np.float32)}, folder / "model.safetensors")
    return folder
