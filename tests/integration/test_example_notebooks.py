"""The notebooks of `examples/`, run by a kernel; names they share with transformers are equal."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from tests.checkpoint_factory import make_checkpoint
from tests.services import ROOT, Services, running_services

DUMP = """
import json

with open({path!r}, "w") as file:
    found = {{name: globals()[name] for name in {names!r} if name in globals()}}
    json.dump(found, file, default=lambda value: getattr(value, "tolist", value.__repr__)())
"""

DEVICE_MAP = {
    **{f"transformer.{name}": "cpu" for name in ("wte", "wpe", "drop", "h.0", "h.1", "ln_f")},
    "transformer.h.2": "disk",
    "lm_head": "cpu",
}


@pytest.fixture
def grown(tmp_path):
    """Services of their own, of the model family that the notebooks come from."""
    checkpoint = make_checkpoint(tmp_path / "tiny", "gpt2")
    flags = (f"--device-map={json.dumps(DEVICE_MAP)}",)
    with running_services(checkpoint, tmp_path, model_flags=flags) as running:
        yield running


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


def executed(
    notebook: nbformat.NotebookNode, services: Services, folder: Path, names: list[str]
) -> dict:
    """Runs the cells against services, and returns the values of some of their names."""
    for cell in notebook.cells:
        cell.source = cell.source.replace(
            "Lockstep()", f"Lockstep({services.tokenizer.address!r}, {services.model.address!r})"
        )
    dump = folder / "names.json"
    notebook.cells.append(nbformat.v4.new_code_cell(DUMP.format(path=str(dump), names=names)))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return json.loads(dump.read_text())


def in_transformers(notebook: nbformat.NotebookNode, checkpoint: Path) -> dict:
    """Runs the lines for transformers, and returns the values of their names."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    blocks = re.findall(r"^```python\n(.*?)^```$", "\n".join(texts), re.DOTALL | re.MULTILINE)
    names = {"checkpoint": checkpoint, "device_map": DEVICE_MAP}
    exec("\n".join(blocks), names)
    return {name: value for name, value in names.items() if not name.startswith("_")}


@pytest.mark.parametrize(("name", "count"), [("padding", 20), ("special_tokens", 18)])
def test_what_transformers_and_lockstep_name_alike_is_alike(grown, tmp_path, name, count):
    notebook = read(name)
    theirs = in_transformers(notebook, grown.checkpoint)
    ours = executed(notebook, grown, tmp_path, sorted(theirs))
    compared = [name for name in ours if equal(name, ours[name], theirs[name])]
    assert len(compared) >= count, compared


def test_what_a_tour_returns_draws_itself(grown, tmp_path):
    notebook = read("tour")
    executed(notebook, grown, tmp_path, [])
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:-1]  # without the dump
    drawn = [
        any("text/html" in output.get("data", {}) for output in cell.outputs) for cell in cells
    ]
    assert drawn == [False, True, True, True, False, True, True]


def equal(name: str, ours: object, theirs: object) -> bool:
    """Compares two values of one name; False for objects that have no common form."""
    if not isinstance(theirs, torch.Tensor) and type(theirs) not in (int, str, list, dict):
        return False
    if isinstance(theirs, torch.Tensor):
        theirs = theirs.detach().tolist()
    if isinstance(theirs, list):
        theirs = [each.tolist() if isinstance(each, torch.Tensor) else each for each in theirs]
    assert ours == approximately(theirs), name
    return True


def approximately(value: object) -> object:
    """Returns what equals a value but for the last bits of its floats, at any depth."""
    if isinstance(value, list):
        return [approximately(each) for each in value]
    return pytest.approx(value, rel=2e-4, abs=2e-4) if isinstance(value, float) else value
