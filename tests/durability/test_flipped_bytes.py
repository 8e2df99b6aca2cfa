"""One byte of the store's file is not what was written. No reader may be told something else."""

import random
import subprocess
import sys

import pytest
from lockstep.v1 import vocabulary_admin_service_pb2 as admin

from rpc.errors import IdempotencyKeyReused, StoreUnavailable
from tests.correctness.sizes import sizes
from tests.durability.ledger import Ledger
from tests.durability.recorder import ROOT
from tests.durability.writer import BASE, history
from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder
from tokenizer_service.store import Store, StoreError
from vocabulary import BrokenChainError

CALLS = 40
PAGE = 4096


def open_store(path):
    return Store(f"sqlite:///{path}", BASE, observe=lambda *_: None)


def told(store):
    """Returns all that callers may be told: the chain with its times, and every reply."""
    stored = store.verified()
    store.check_pages()
    return stored, [store.reply(call) for _, call, _ in history(CALLS)]


@pytest.fixture
def written(memory_folder):
    path = memory_folder / "vocabulary.sqlite"
    store = open_store(path)
    for link, call, response in history(CALLS):
        store.append(link, call, response)
    promised = told(store)
    store.close()
    return path, promised


@sizes("per_page", 12, 400)
def test_a_flipped_byte_is_refused_or_changes_nothing(written, per_page):
    path, promised = written
    content = path.read_bytes()
    draw = random.Random(5)
    outcomes = {"refused": 0, "unused": 0}
    for page in range(0, len(content), PAGE):
        # The first bytes of a page say what is in it.
        offsets = {*draw.sample(range(PAGE), per_page), *draw.sample(range(110), 4)}
        for offset in offsets:
            damaged = bytearray(content)
            damaged[page + offset] ^= draw.randrange(1, 256)
            path.write_bytes(damaged)
            outcomes[outcome(path, promised)] += 1
    print(f"{len(content) // PAGE} pages: {outcomes}")
    assert outcomes["refused"] > outcomes["unused"] / 10


def test_damage_that_the_database_quotes_is_refused(written):
    path, _ = written
    content = path.read_bytes()
    at = content.index(b"sqlite_autoindex_reply_1")
    path.write_bytes(content[:at] + b"\xdd" + content[at + 1 :])
    with pytest.raises(StoreError, match="lockstep vocab import"):
        open_store(path)


def outcome(path, promised):
    try:
        store = open_store(path)
    except StoreError as error:
        return "refused" if "--store" in str(error) or "version" in str(error) else str(error)
    try:
        found = told(store)
    except (BrokenChainError, StoreUnavailable, IdempotencyKeyReused):
        return "refused"
    finally:
        store.close()
    assert found == promised
    return "unused"


def test_damage_is_found_at_start_and_while_running(tmp_path):
    tokenizer = make_tokenizer_folder(tmp_path / "tiny")
    path = tmp_path / "store" / "vocabulary.sqlite"
    with running_tokenizer(tokenizer, tmp_path / "store", "--template-workers=1") as stubs:
        ledger = Ledger(base_size=400)
        for _ in range(3):
            ledger.add(stubs)
        content = bytearray(path.read_bytes())
        at = content.index(b'"special":true') + len(b'"special":')
        content[at : at + 4] = b"null"
        path.write_bytes(content)
        verified = stubs.admin.VerifyRevisions(admin.VerifyRevisionsRequest())
        assert not verified.valid
        assert verified.first_invalid_revision in (1, 2, 3)
        assert stubs.info().vocabulary.revision == 3  # what it serves, it has verified
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tokenizer_service", f"--model={tokenizer}"),
            *("--port=0", "--health-port=0", "--metrics-port=0", f"--store=sqlite:///{path}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "lockstep vocab import" in done.stderr
    assert "Traceback" not in done.stderr
