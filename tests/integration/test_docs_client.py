"""Everything that docs/client.md tells readers to run, run against the real services."""

import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lockstep_client.cli import app
from tests.checkpoint_factory import make_checkpoint
from tests.services import ROOT, Services, running_services

PAGE = (ROOT / "docs" / "client.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.removeprefix("$ ")
    for block in _blocks("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory):
    """Services of their own, whose vocabulary the page may grow."""
    folder = tmp_path_factory.mktemp("docs")
    with running_services(make_checkpoint(folder / "tiny", "llama"), folder) as running:
        yield running


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(services: Services, command):
    program, *arguments = shlex.split(command)
    assert program == "lockstep"
    arguments = [str(int(a) % 300) if a.isdecimal() and len(a) > 2 else a for a in arguments]
    result = CliRunner(env=services.environment).invoke(app, arguments)
    assert result.exit_code == 0, result.stderr


def test_the_python_of_the_page_runs_from_top_to_bottom(grown: Services):
    script = "\n".join(_blocks("python"))
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
    assert "generation_config.top_p" in result.stdout
