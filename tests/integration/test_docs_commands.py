"""Everything that the pages about clients tell readers to run, run against the real services."""

import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lockstep_client._cli import app
from tests.checkpoint_factory import make_checkpoint
from tests.services import ROOT, Services, running_services

PRINTED = {
    "README.md": "(2, 4, 320)",
    "docs/client.md": "top_p must be",
    "docs/coming_from.md": "",
    "docs/tutorial.md": "(1, 321)",
    "docs/vocabulary.md": "(1, 8, 322)",
}
PAGES = tuple(PRINTED)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.removeprefix("$ ")
    for page in PAGES
    for block in blocks(page, "console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture
def grown(tmp_path):
    """Services of their own, whose vocabulary a page may grow."""
    with running_services(make_checkpoint(tmp_path / "tiny", "llama"), tmp_path) as running:
        yield running


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_runs(services: Services, command):
    program, *arguments = shlex.split(command)
    assert program.removeprefix(".venv/bin/") == "lockstep"
    arguments = [str(int(a) % 300) if a.isdecimal() and len(a) > 2 else a for a in arguments]
    result = CliRunner(env=services.environment).invoke(app, arguments)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs_from_top_to_bottom(grown: Services, page):
    script = "\n".join(blocks(page, "python"))
    script = script.replace("Lockstep()", "Lockstep('localhost:50051', 'localhost:50052')")
    script = script.replace("localhost:50051", grown.tokenizer.address)
    script = script.replace("localhost:50052", grown.model.address)
    script = re.sub(r"\b(504|3575)\b", "104", script)  # ids that the tiny vocabulary has
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert PRINTED[page] in result.stdout


def test_what_one_writes_here_instead_runs(grown: Services):
    (setup,) = blocks("docs/coming_from.md", "python")
    there = f"Lockstep({grown.tokenizer.address!r}, {grown.model.address!r})"
    names: dict[str, object] = {}
    exec(setup.replace("Lockstep()", there), names)
    page = (ROOT / "docs/coming_from.md").read_text()
    cells = re.findall(r"^\|.*\| ([^|]*) \|$", page, flags=re.MULTILINE)
    expressions = [code for cell in cells for code in re.findall(r"`(\w[^`]*\(.*?)`", cell)]
    assert len(expressions) >= 40
    for expression in expressions:
        eval(expression, names)
    names["ls"].close()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks(page, "sh")), flags=re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
    for test in re.findall(r"pytest ([\w/.]+)`", text):
        assert (ROOT / test).is_file(), test


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name
)
def test_a_link_of_a_page_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
