import sqlite3
import subprocess
import sys

import pytest

from rpc.errors import IdempotencyKeyReused, StoreUnavailable
from tokenizer_service.store import Call, Store, StoreError
from vocabulary import AddedToken, BrokenChainError, Change, Link, NewToken, Reference, chain

BASE = Reference("tiny", 0, "0" * 64, 10)


def open_store(path, base=BASE, observe=lambda *_: None):
    return Store(f"sqlite:///{path}", base, observe=observe)


def call(number):
    return Call.of(f"00000000-0000-0000-0000-{number:012}", b"request %d" % number)


def append(store, parent, content="x"):
    change = Change(tokens=(NewToken(id=parent.size, token=AddedToken(content)),))
    after = chain.follow(parent, change)
    store.append(Link(parent.fingerprint, change, after), call(after.revision), b"reply")
    return after


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vocabulary.sqlite"


def test_revisions_are_there_after_a_restart(path):
    store = open_store(path)
    first = append(store, BASE)
    second = append(store, first, "日本")
    store.close()
    store = open_store(path)
    assert [stored.link.vocabulary for stored in store.verified()] == [first, second]
    assert [stored.link.vocabulary for stored in store.revisions(after=1)] == [second]
    store.close()


def test_a_repeated_call_finds_the_reply_and_another_request_does_not(path):
    store = open_store(path)
    assert store.reply(call(1)) is None
    append(store, BASE)
    assert store.reply(call(1)) == b"reply"
    with pytest.raises(IdempotencyKeyReused) as caught:
        store.reply(Call.of(call(1).idempotency_key, b"another request"))
    assert caught.value.metadata["revision"] == "1"
    store.close()


def test_a_call_that_changed_nothing_has_a_reply_too(path):
    store = open_store(path)
    store.append(None, call(7), b"nothing new")
    assert store.reply(call(7)) == b"nothing new"
    assert store.revisions() == []
    store.close()


def test_a_revision_and_its_reply_are_written_together_or_not_at_all(path):
    store = open_store(path)
    append(store, BASE)
    change = Change(tokens=(NewToken(id=11, token=AddedToken("y")),))
    after = chain.follow(chain.follow(BASE, Change((NewToken(10, AddedToken("x")),))), change)
    with pytest.raises(StoreUnavailable):  # the key is taken, which the revision must feel
        store.append(Link("1" * 64, change, after), call(1), b"reply")
    assert len(store.revisions()) == 1
    append(store, store.revisions()[0].link.vocabulary)  # and the store goes on
    store.close()


def test_another_tokenizer_is_refused_with_the_way_out(path):
    open_store(path).close()
    with pytest.raises(StoreError, match="--store"):
        open_store(path, Reference("tiny", 0, "1" * 64, 10))


def test_a_store_in_use_is_refused(path):
    store = open_store(path)
    append(store, BASE)
    program = (
        "from tokenizer_service.store import Store, StoreError\n"
        "from vocabulary import Reference\n"
        "try:\n"
        f"    Store('sqlite:///{path}', Reference('tiny', 0, '0' * 64, 10), observe=print)\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "in use by another process" in done.stdout
    store.close()


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE revision SET change = replace(change, 'x', 'y') WHERE revision = 2",
        "UPDATE revision SET change = x'00' WHERE revision = 2",
        "UPDATE revision SET size = 99 WHERE revision = 2",
        "UPDATE revision SET parent_fingerprint = 'f' WHERE revision = 2",
        "DELETE FROM revision WHERE revision = 1",
    ],
)
def test_a_damaged_revision_breaks_the_chain(path, damage):
    store = open_store(path)
    newest = BASE
    for _ in range(3):
        newest = append(store, newest)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    store = open_store(path)
    with pytest.raises(BrokenChainError):
        store.verified()
    store.close()


def test_commits_are_synchronous_and_without_a_write_ahead_log(path):
    store = open_store(path)
    pragmas = {
        name: store._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        for name in ("journal_mode", "synchronous", "locking_mode")
    }
    assert pragmas == {"journal_mode": "delete", "synchronous": 3, "locking_mode": "exclusive"}
    store.close()


def test_a_full_disk_is_an_error_that_can_be_retried(path):
    observed = []
    store = open_store(path, observe=lambda *what: observed.append(what[:2]))
    pages = store._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    store._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    store._connection.rollback()

    def append_until_full():
        newest = BASE
        try:
            while True:
                newest = append(store, newest)
        except StoreUnavailable as error:
            return newest, error

    newest, error = append_until_full()
    assert error.retry_delay_s is not None
    assert ("append", "error") in observed
    store._connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    store._connection.rollback()
    assert append(store, newest).revision == newest.revision + 1
    store.close()


def test_another_log_is_written_as_it_was_and_known_replies_are_left(path, tmp_path):
    first = open_store(path)
    append(first, append(first, BASE), "y")
    first.append(None, call(7), b"nothing new")
    second = open_store(tmp_path / "other.sqlite")
    second.append(None, call(7), b"my own reply")
    assert second.extend(first.revisions(), first.replies("", 2, 100)) == 2
    assert second.verified() == first.verified()
    assert second.reply(call(1)) == b"reply"
    assert second.reply(call(7)) == b"my own reply"
    first.close()
    second.close()


def test_another_log_is_written_whole_or_not_at_all(path, tmp_path):
    first = open_store(path)
    append(first, append(first, BASE), "y")
    second = open_store(tmp_path / "other.sqlite")
    taken = first.revisions()
    with pytest.raises(StoreUnavailable):
        second.extend([*taken, taken[0]], first.replies("", 2, 100))
    assert second.revisions() == []
    assert second.reply(call(1)) is None
    first.close()
    second.close()


def test_revisions_and_replies_are_read_in_pages(path):
    store = open_store(path)
    append(store, append(store, append(store, BASE), "y"), "z")
    assert [one.link.vocabulary.revision for one in store.revisions(1, 1)] == [2]
    keys = [reply.call.idempotency_key[-1] for reply in store.replies("", 2, 100)]
    assert keys == ["1", "2"]
    assert [r.revision for r in store.replies(call(1).idempotency_key, 3, 1)] == [2]
    store.close()
