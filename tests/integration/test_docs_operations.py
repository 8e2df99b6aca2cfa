"""Everything that the pages about operation tell readers to run."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lockstep_client import Lockstep
from lockstep_client._cli import app
from tests import helm
from tests.checkpoint_factory import make_checkpoint
from tests.integration.test_docs_commands import blocks
from tests.integration.tokenizer_process import running_tokenizer
from tests.ports import free_port
from tests.postgresql import PASSWORD, PostgreSQLServer
from tests.postgresql import program as postgresql_program
from tests.services import ROOT, ServiceProcess

# What a page tells to run, and what has to be on the machine for it: `make test-images` runs these.
BUILDS = ("make", "buildah", "LOCKSTEP_CACHE=.lockstep/weights")
OF_CLUSTER = re.compile(r"^(kubectl (?!kustomize)|helm install)")


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


KUBERNETES = commands("docs/kubernetes.md")
HERE = [each for each in KUBERNETES if not each.startswith(BUILDS) and not OF_CLUSTER.search(each)]
IN_CLUSTER = [each for each in KUBERNETES if OF_CLUSTER.search(each)]


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    if program == "helm":
        program = str(helm.program())
    return subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def no_cluster(tmp_path: Path) -> dict[str, str]:
    """Variables that name a cluster where nothing listens."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "clusters": [{"name": "none", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "none", "user": {}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return {"KUBECONFIG": str(path)}


@pytest.mark.parametrize("command", HERE)
def test_a_command_runs_that_needs_no_cluster(command):
    result = run(command)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", IN_CLUSTER)
def test_a_command_for_a_cluster_fails_for_nothing_but_the_cluster(no_cluster, command):
    result = run(command, **no_cluster)
    assert result.returncode != 0
    assert re.search("refused|cluster unreachable", result.stderr), result.stderr


def test_a_flag_that_does_not_exist_would_be_found(no_cluster):
    result = run("kubectl -n lockstep get pods --outputs=wide", **no_cluster)
    assert "unknown flag" in result.stderr


def test_the_overlay_that_the_page_begins_with_is_one(tmp_path: Path):
    text = blocks("docs/kubernetes.md", "yaml")[0]
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", symlinks=True)
    folder = tmp_path / "deploy" / "kustomize" / "overlays" / "mine"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(text)
    result = run(f"kubectl kustomize {folder}")
    assert result.returncode == 0, result.stderr
    assert "model: HuggingFaceTB/SmolLM2-360M-Instruct" in result.stdout
    assert "image: registry.example.com/lockstep-model:0.1.0" in result.stdout


BACKUP, RESTORE, DUMP, UNDUMP = (
    next(each for each in commands("docs/operations.md") if word in each)
    for word in ("vocab export", "vocab import", "pg_dump", "pg_restore")
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("backup") / "tiny", "llama")


def grow(service: ServiceProcess) -> tuple[str, list[int]]:
    """Adds tokens, and returns fingerprint and ids."""
    with Lockstep(tokenizer=service.address) as client:
        client.vocabulary.add_tokens(["<one>", "<two>"])
        client.vocabulary.add_tokens(["<three>"])
    return read(service)


def read(service: ServiceProcess) -> tuple[str, list[int]]:
    with Lockstep(tokenizer=service.address) as client:
        ids = client.tokenizer.encode("<one><two><three>").input_ids[0]
        return client.tokenizer.info().vocabulary.fingerprint, list(ids)


def invoke(command: str, service: ServiceProcess, folder: Path) -> None:
    """Runs a command of the client in a folder."""
    program, *arguments = shlex.split(command)
    assert program == "lockstep"
    arguments = [str(folder / each) if "." in each else each for each in arguments]
    result = CliRunner(env={"LOCKSTEP_TOKENIZER": service.address}).invoke(app, arguments)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_export_restores_every_id_in_an_empty_store(
    checkpoint: Path, tmp_path: Path, postgresql: PostgreSQLServer, kind
):
    stores = [f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new")]
    if kind == "postgresql":
        stores = [postgresql.url(postgresql.new_database()) for _ in stores]
    with running_tokenizer(checkpoint, tmp_path / "old", store=stores[0]) as running:
        before = grow(running.service)
        invoke(BACKUP, running.service, tmp_path)
    with running_tokenizer(checkpoint, tmp_path / "new", store=stores[1]) as running:
        assert read(running.service) != before
        for command in (RESTORE, RESTORE, "lockstep vocab verify"):
            invoke(command, running.service, tmp_path)
        assert read(running.service) == before


def test_a_dump_of_the_database_restores_every_id(
    checkpoint: Path, tmp_path: Path, postgresql: PostgreSQLServer
):
    old, new = postgresql.new_database(), postgresql.new_database()
    with running_tokenizer(checkpoint, tmp_path / "old", store=postgresql.url(old)) as running:
        before = grow(running.service)
        dump(DUMP, postgresql.url(old), tmp_path)  # while the service runs
    dump(UNDUMP, postgresql.url(new), tmp_path)
    with running_tokenizer(checkpoint, tmp_path / "new", store=postgresql.url(new)) as running:
        assert read(running.service) == before
        invoke("lockstep vocab verify", running.service, tmp_path)


def dump(command: str, database: str, folder: Path) -> None:
    """Runs one of the database's own tools in a folder."""
    name, _, arguments = command.partition(" ")
    result = subprocess.run(
        ["sh", "-c", f"{postgresql_program(name)} {arguments}"],
        cwd=folder,
        env=os.environ | {"DATABASE": database, "PGPASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
