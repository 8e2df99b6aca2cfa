"""What the tree promises: layers, fresh stubs, complete pins, nothing of one machine."""

import filecmp
import graphlib
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from docs.modules import PACKAGES

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, ROOT / "protos", ROOT / "client" / "python"]
STUBS = ROOT / "protos" / "gen"

MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users|farm)/\w")
GRPC_MINIMUM = re.compile(r"GRPC_GENERATED_VERSION = '([\d.]+)'")
PROTOBUF_MINIMUM = re.compile(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),")


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in output.splitlines() if (path := ROOT / name).is_file()]


def requirements(project: Path) -> dict[str | None, list[Requirement]]:
    """Reads the requirements of a distribution by extra; None has those of all."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    groups = {None: table["dependencies"]} | table.get("optional-dependencies", {})
    return {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}


def names(lines: list[Requirement]) -> set[str]:
    return {line.name.lower().replace("_", "-") for line in lines}


def test_layers_are_kept():
    result = subprocess.run(["lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_no_modules_import_each_other_in_a_circle():
    """Imports for types only count as well: one that has to be hidden is a type out of place."""
    packages = {name.removeprefix("client/python/").split("/")[0] for name in PACKAGES}
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    list(graphlib.TopologicalSorter(imports).static_order())  # or it names the circle


@pytest.mark.parametrize("module", ["tokenizer_service.server", "model_service.front.server"])
def test_a_service_runs_without_torch_in_its_process(module):
    """import-linter sees our imports only; a library may bring torch along."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_client_imports_nothing_of_the_services():
    ours = {name for name in PACKAGES if "/" not in name} | {"torch", "transformers"}
    program = f"import sys, lockstep_client; sys.exit(bool({ours!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_stubs_are_what_the_schemas_give(tmp_path: Path):
    subprocess.run([ROOT / "protos" / "generate", tmp_path], check=True)
    fresh = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    present = {path.relative_to(STUBS) for path in tracked("protos/gen")}
    assert present == fresh
    _, different, failed = filecmp.cmpfiles(tmp_path, STUBS, [str(path) for path in fresh], False)
    assert (different, failed) == ([], []), "Run `make protos`."


def test_every_package_is_on_the_architecture_page():
    folders = {path.relative_to(ROOT).parts[0] for path in tracked("*.py")}
    listed = {name.split("/")[0] for name in PACKAGES}
    assert folders - {"docs", "protos", "tests"} == listed


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_what_a_page_points_to_exists(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:\.?\w+/)[\w./]+)`", text)
    ours = {name for name in named if (ROOT / name.split("/")[0]).exists()}
    linked = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    assert linked
    assert [name for name in ours | linked if not (ROOT / name).exists()] == []


def test_nothing_names_a_place_on_one_machine():
    found = []
    for path in tracked():
        if path.suffix not in {".png", ".ico"}:
            text = path.read_text()
            found += [f"{path.relative_to(ROOT)}: {hit}" for hit in MACHINE_PATH.findall(text)]
    assert found == []


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_what_ci_installs_is_pinned_within_the_ranges(project: Path):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    for line in itertools.chain.from_iterable(requirements(project).values()):
        if line.name.startswith("lockstep"):
            continue
        name = line.name.lower()
        assert name in pins, f"{name} is not in constraints.txt"
        assert line.specifier.contains(pins[name]), f"{line} excludes {pins[name]}"


def test_torch_comes_with_the_model_service_only():
    root = requirements(ROOT)
    heavy = {"torch", "accelerate"}
    assert heavy <= names(root["model"])
    assert not heavy & names(root[None] + root["tokenizer"])
    client = requirements(ROOT / "client" / "python")[None]
    assert not (heavy | {"transformers", "tokenizers"}) & names(client)


def minimum(project: Path, name: str) -> Version:
    (line,) = [each for each in requirements(project)[None] if each.name == name]
    (bound,) = [each.version for each in line.specifier if each.operator == ">="]
    return Version(bound)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_no_runtime_older_than_the_stubs_is_allowed(project: Path):
    stubs = "".join(path.read_text() for path in STUBS.rglob("*_pb2*.py"))
    grpc = max(Version(found) for found in GRPC_MINIMUM.findall(stubs))
    protobuf = max(Version(".".join(found)) for found in PROTOBUF_MINIMUM.findall(stubs))
    assert minimum(project, "grpcio") >= grpc
    assert minimum(project, "protobuf") >= protobuf
