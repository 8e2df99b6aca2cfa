"""What the tree promises: layers, fresh stubs, complete pins, nothing of one machine."""

import filecmp
import graphlib
import itertools
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from docs.modules import PACKAGES

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, ROOT / "protos", ROOT / "client" / "python"]
STUBS = ROOT / "protos" / "gen"

# Written by hand: the page of modules comes from the tree.
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} - {ROOT / "docs/modules.md"})

MAX_LINES = 400
MAX_MODULES = 15

MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users|farm)/\w")
GRPC_MINIMUM = re.compile(r"GRPC_GENERATED_VERSION = '([\d.]+)'")
PROTOBUF_MINIMUM = re.compile(r"# Protobuf Python Version: ([\d.]+)")


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


def product_modules() -> list[Path]:
    folders = [ROOT / package for package in PACKAGES]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(modules) > 200
    return modules


def test_no_file_is_too_long_to_be_read_at_once():
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in product_modules()}
    long = {
        name
        for name, text in texts.items()
        if len(text.splitlines()) > MAX_LINES and not text.startswith("# Generated from")
    }
    assert long == set()


def test_a_folder_of_many_modules_says_why_it_is_one_folder():
    modules = [path for path in product_modules() if path.stem not in {"__init__", "__main__"}]
    sizes = Counter(path.parent for path in modules)
    large = [folder for folder, count in sizes.items() if count > MAX_MODULES]
    silent = {
        folder.relative_to(ROOT).as_posix()
        for folder in large
        if "One folder" not in (folder / "__init__.py").read_text()
    }
    assert silent == set()


def test_every_package_is_on_the_modules_page():
    folders = {path.relative_to(ROOT).parts[0] for path in tracked("*.py")}
    listed = {name.split("/")[0] for name in PACKAGES}
    assert folders - {"docs", "protos", "tests"} == listed


def test_every_room_is_on_the_architecture_page():
    named = set(re.findall(r"`([\w/]+)`", (ROOT / "docs/architecture.md").read_text()))
    parents = {"", "tokenizer_service", "model_service", "model_service/front"}
    parents |= {"model_service/engine"}
    folders = {path.relative_to(ROOT).parent for path in tracked("*.py")}
    packages = {each for folder in folders for each in (folder, *folder.parents)}
    rooms = {each.as_posix() for each in packages if each.parent.as_posix().lstrip(".") in parents}
    assert rooms - {".", "client", "model_service"} - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_exists(page):
    text = page.read_text()
    named = re.findall(r"`((?:\.?\w+/)[\w./]+)`", text)
    ours = {name for name in named if (ROOT / name.split("/")[0]).exists()}
    linked = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    missing = [name for name in ours if not (ROOT / name).exists()]
    missing += [link for link in linked if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_module_that_a_page_names_without_its_folder_exists(page):
    files = {path.name for path in tracked("*.py", "*.proto")}
    named = re.findall(r"`(\w+\.(?:py|proto))`", page.read_text())
    assert [name for name in named if name not in files] == []


def test_nothing_names_a_place_on_one_machine():
    found = []
    for path in tracked():
        if path.suffix not in {".png", ".ico"}:
            text = path.read_text(errors="replace")  # also what is not text as a whole
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
    protobuf = max(Version(found) for found in PROTOBUF_MINIMUM.findall(stubs))
    assert minimum(project, "grpcio") >= grpc
    assert minimum(project, "protobuf") >= protobuf
