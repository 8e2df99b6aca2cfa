"""`lockstep vocab reset` and the store of a real service."""

import subprocess
import sys
import uuid

import pytest
from lockstep.v1 import vocabulary_admin_service_pb2 as admin
from lockstep.v1 import vocabulary_pb2

from lockstep_client import Lockstep
from lockstep_client.exceptions import VocabularyMismatch
from tests.integration.tokenizer_process import running_tokenizer
from tests.ports import free_port
from tests.tokenizer_factory import make_tokenizer_folder

COMMAND = [sys.executable, "-c", "from lockstep_client._cli import main; main()", "vocab", "reset"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")


def reset(folder, store, *flags):
    named = ["--model", str(folder), "--store", f"sqlite:///{store}"]
    return subprocess.run([*COMMAND, *named, *flags], capture_output=True, text=True, check=False)


def add(stubs, content):
    token = admin.TokenToAdd(token=vocabulary_pb2.AddedToken(content=content, special=True))
    request = admin.AddTokensRequest(tokens=[token], idempotency_key=str(uuid.uuid4()))
    return stubs.admin.AddTokens(request)


def test_a_reset_store_begins_again_and_the_old_one_is_kept(folder, tmp_path):
    store = tmp_path / "vocabulary.sqlite"
    with running_tokenizer(folder, tmp_path) as stubs:
        added = add(stubs, "<a>")
        refused = reset(folder, store, "--yes")
        assert refused.returncode == 1
        assert "is in use: stop its tokenizer service first" in refused.stderr
        assert stubs.info().vocabulary == added.vocabulary
    unsure = reset(folder, store)
    assert unsure.returncode == 2
    assert "--yes" in unsure.stderr
    assert [path.name for path in tmp_path.glob("vocabulary.sqlite*")] == [store.name]
    done = reset(folder, store, "--yes")
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.glob("vocabulary.sqlite.*")
    assert str(kept) in done.stdout
    with running_tokenizer(folder, tmp_path) as stubs:
        assert stubs.info().vocabulary.revision == 0
    with running_tokenizer(folder, tmp_path, store=kept) as stubs:
        assert stubs.info().vocabulary == added.vocabulary


@pytest.mark.parametrize("grows_again", [False, True])
def test_a_client_that_lives_on_is_told_once_that_the_vocabulary_was_set_back(
    folder, tmp_path, grows_again
):
    store, port = tmp_path / "vocabulary.sqlite", free_port()
    with Lockstep(tokenizer=f"127.0.0.1:{port}", model="127.0.0.1:1") as ls:
        with running_tokenizer(folder, tmp_path, f"--port={port}") as stubs:
            add(stubs, "<a>")
            first = ls.tokenizer.encode("<a>")
            assert ls.tokenizer.decode(first.token_ids) == ["<a>"]
        assert reset(folder, store, "--yes").returncode == 0
        with running_tokenizer(folder, tmp_path, f"--port={port}") as stubs:
            if grows_again:
                add(stubs, "<b>")
            with pytest.raises(VocabularyMismatch, match="set back") as told:
                ls.tokenizer.decode([[5]])
            assert told.value.metadata["cause"] == "set_back"
            assert ls.tokenizer.decode([[5]])
            now = ls.tokenizer.encode("x").vocabulary
            assert now is not None
            assert now.fingerprint == stubs.info().vocabulary.fingerprint


def test_without_a_store_there_is_nothing_to_reset(folder, tmp_path):
    result = reset(folder, tmp_path / "none.sqlite", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing to reset" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_is_left_where_it_is(folder, tmp_path):
    (file := tmp_path / "notes.txt").write_text("no store at all\n" * 100)
    result = reset(folder, file, "--yes")
    assert result.returncode == 1
    assert "is no store" in result.stderr
    assert file.read_text() == "no store at all\n" * 100
