"""The site of the pages: it builds, strictly, and its reference has every public name."""

import os
import re
import subprocess
import sys

import pytest

import lockstep_client
from lockstep_client import exceptions
from tests.services import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site. A broken link, anchor or name fails the build."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_public_name_is_in_the_reference(site):
    ids = set(re.findall(r'id="([\w.]+)"', (site / "reference.html").read_text()))
    names = {f"lockstep_client.{name}" for name in lockstep_client.__all__}
    names |= {
        f"lockstep_client.exceptions.{name}"
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.LockstepError)
    }
    assert names - ids - {"lockstep_client." + name for name in vars(exceptions)} == set()


def test_a_keyword_is_described_with_its_range(site):
    text = re.sub(r"<[^>]+>", "", (site / "reference.html").read_text())
    assert "Keeps the k highest-scored tokens" in text


def test_pictures_and_outputs_of_notebooks_are_on_the_site(site):
    assert 'src="pictures/step.svg"' in (site / "tutorial.html").read_text()
    assert (site / "pictures" / "step.svg").is_file()
    assert "[0 1 1 1 1 1]" in (site / "examples" / "padding.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert loaded == [], page
