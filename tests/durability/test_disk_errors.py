"""The disk of a running service is full, fails or cannot be written to."""

import errno
import subprocess
import sys
from contextlib import contextmanager

import grpc
import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb

from tests.durability.ledger import Ledger
from tests.durability.recorder import ROOT, SYNCS, Action, Operation, Recorder
from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder

FLAGS = ("--template-workers=1", "--log-level=error")
ALWAYS = 2**62


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")


def encodes(stubs):
    return stubs.tokenizer.Encode(pb.EncodeRequest(items=[pb.TextItem(text="one two")]))


def refused(stubs, ledger, cause):
    """Makes a call that must fail because of the store, and encodes nevertheless."""
    failure = failure_of(ledger.add, stubs)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert failure.metadata == {"cause": cause}
    assert encodes(stubs).token_batch.sequences


@pytest.mark.parametrize(
    ("kinds", "error", "cause"),
    [
        ((Operation.WRITE,), errno.ENOSPC, "disk_full"),
        ((Operation.WRITE,), errno.EIO, "disk_error"),
        (SYNCS, errno.EIO, "disk_error"),
    ],
)
def test_a_disk_that_fails_is_survived_and_all_acknowledged_calls_too(
    tokenizer, tmp_path, library, kinds, error, cause
):
    folder = tmp_path / "store"
    folder.mkdir()
    recorder = Recorder(library, folder, tmp_path)
    ledger = Ledger(base_size=400)
    with running_tokenizer(tokenizer, folder, *FLAGS, environment=recorder.environment) as stubs:
        ledger.add(stubs)
        recorder.act(Action.FAIL, kinds=kinds, count=ALWAYS, error=error)
        refused(stubs, ledger, cause)
        refused(stubs, ledger, cause)
        recorder.act(Action.NOTHING)
        ledger.add(stubs)
        ledger.check(stubs)
    with running_tokenizer(tokenizer, folder, *FLAGS) as stubs:
        ledger.check(stubs)


@contextmanager
def small_disk(folder):
    """A file system of its own, of 160 KiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_survived_and_written_to_when_there_is_space(tokenizer, tmp_path):
    ledger = Ledger(base_size=400)
    with small_disk(tmp_path / "disk") as disk:
        store = disk / "vocabulary.sqlite"
        ballast = disk / "ballast"
        with running_tokenizer(tokenizer, tmp_path, *FLAGS, store=store) as stubs:
            ledger.add(stubs)
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(bytes(2**20))
            failure = failure_of(add_many, stubs, ledger)
            assert failure.metadata == {"cause": "disk_full"}
            refused(stubs, ledger, "disk_full")
            ballast.unlink()
            ledger.add(stubs)
            ledger.check(stubs)
        with running_tokenizer(tokenizer, tmp_path, *FLAGS, store=store) as stubs:
            ledger.check(stubs)


def add_many(stubs, ledger):
    for _ in range(100):
        ledger.add(stubs)


def test_a_store_on_a_read_only_disk_is_refused_at_start(tokenizer, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        store = disk / "vocabulary.sqlite"
        with running_tokenizer(tokenizer, tmp_path, *FLAGS, store=store) as stubs:
            Ledger(base_size=400).add(stubs)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        command = [sys.executable, "-m", "tokenizer_service", f"--model={tokenizer}"]
        ports = ("--port=0", "--health-port=0", "--metrics-port=0")
        done = subprocess.run(
            [*command, *ports, f"--store=sqlite:///{store}", "--log-level=error"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr
