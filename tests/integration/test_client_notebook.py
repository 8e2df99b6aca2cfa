"""What a notebook shows of values, run by a kernel of Jupyter."""

import ast
import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests.services import ROOT, Services

CELLS = {
    "encoding": "ls.tokenizer.encode(['The <b> capital', 'x'], padding='longest', "
    "return_token_bytes=True)",
    "completion": "ls.generate('The capital', max_new_tokens=4, do_sample=False)",
    "distribution": "ls.model.compute_logits([[54, 74, 71]]).rows[0][-1]",
    "processors": "ls.distribution('The capital', do_sample=True, top_k=3)",
    "revision": "next(iter(ls.vocabulary.revisions()))",
    "client": "ls",
    "completions": "session = ls.model.open_session([[5]])\nsession.close()\n"
    "[name for name in dir(session) if not name.startswith('_')]",
}


@pytest.fixture(scope="module")
def outputs(services: Services) -> dict[str, dict[str, str]]:
    """What each cell shows, by its type."""
    addresses = f"tokenizer={services.tokenizer.address!r}, model={services.model.address!r}"
    start = f"from lockstep_client import Lockstep\nls = Lockstep({addresses})"
    cells = [nbformat.v4.new_code_cell(source) for source in (start, *CELLS.values())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    path = os.pathsep.join([str(ROOT / "client/python"), str(ROOT / "protos/gen")])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": path})
    shown = [cell.outputs[-1].data for cell in notebook.cells[1:]]
    return dict(zip(CELLS, shown, strict=True))


def test_an_encoding_is_drawn_as_pieces_with_ids(outputs):
    drawn = outputs["encoding"]["text/html"]
    assert "␣capit<br>" in drawn or "␣<br>" in drawn
    assert "&lt;" in drawn
    assert "#e5e7eb" in drawn


def test_a_completion_is_drawn_as_its_text(outputs):
    assert "finish reason max_new_tokens" in outputs["completion"]["text/html"]
    assert outputs["completion"]["text/plain"].startswith("Completion(text=")


def test_a_distribution_is_drawn_as_bars(outputs):
    assert outputs["distribution"]["text/html"].count("background:#3b82f6") >= 12


def test_what_processors_do_is_drawn_as_bars_beside_each_other(outputs):
    drawn = outputs["processors"]["text/html"]
    assert "<th>model</th><th>top_k</th>" in drawn
    assert '<td style="text-align:left">others</td>' in drawn


def test_a_revision_is_drawn_with_what_it_is(outputs):
    assert "revision 0" in outputs["revision"]["text/html"]


def test_a_client_is_printed_with_its_addresses(outputs):
    assert outputs["client"]["text/plain"].startswith("<Lockstep tokenizer=localhost:")


def test_a_session_completes_to_what_callers_use(outputs):
    names = ast.literal_eval(outputs["completions"]["text/plain"])
    assert {"step", "logits", "position", "look_ahead", "generate", "closed"} <= set(names)
    assert {"step_request", "apply_step", "found", "copy", "leaving"}.isdisjoint(names)
    assert len(names) <= 26
