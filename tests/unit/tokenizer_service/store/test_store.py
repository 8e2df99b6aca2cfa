import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rpc.errors import IdempotencyKeyReused, InvalidField, RevisionConflict, StoreUnavailable
from tokenizer_service.store import Call, Store, StoreError, schema
from tokenizer_service.store.database import parse_url
from vocabulary import (
    AddedToken,
    BrokenChainError,
    Change,
    Link,
    NewToken,
    Reference,
    canonical,
    chain,
)

DATA = Path(__file__).parent / "data"
BASE = Reference("tiny", 0, "0" * 64, 10)


def open_store(url, base=BASE, observe=lambda *_: None):
    return Store(url, base, observe=observe)


def call(number):
    return Call.of(f"00000000-0000-0000-0000-{number:012}", b"request %d" % number)


def following(parent, content="x"):
    change = Change(tokens=(NewToken(id=parent.size, token=AddedToken(content)),))
    return Link(parent.fingerprint, change, chain.follow(parent, change))


def append(store, parent, content="x"):
    link = following(parent, content)
    store.append(link, call(link.vocabulary.revision), b"reply")
    return link.vocabulary


def version_of(store):
    with store.database.engine.connect() as connection:
        return connection.execute(sa.select(schema.store.c.schema_version)).scalar_one()


def forked(store):
    """Gives a state a second successor, which the database itself must refuse."""
    with store.database.engine.connect() as connection:
        row = connection.execute(sa.select(schema.revision).limit(1)).one()._asdict()
        row |= {"revision": 77, "fingerprint": "7" * 64}
        with pytest.raises(IntegrityError, match="parent"):
            connection.execute(sa.insert(schema.revision).values(**row))
    return True


def pragma(store, text):
    with store.database.engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {text}").scalar_one()


def execute(url, statement):
    """Does something behind the store's back."""
    engine = sa.create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vocabulary.sqlite"


@pytest.fixture
def file_url(path):
    return f"sqlite:///{path}"


@pytest.fixture(params=["file_url", "postgresql_url"])
def url(request):
    """A store that does not exist yet."""
    return request.getfixturevalue(request.param)


def test_revisions_are_there_after_a_restart(url):
    store = open_store(url)
    first = append(store, BASE)
    second = append(store, first, "日本")
    store.close()
    store = open_store(url)
    assert [stored.link.vocabulary for stored in store.verified()] == [first, second]
    assert [stored.link.vocabulary for stored in store.revisions(after=1)] == [second]
    store.close()


def test_a_repeated_call_finds_the_reply_and_another_request_does_not(url):
    store = open_store(url)
    assert store.reply(call(1)) is None
    append(store, BASE)
    assert store.reply(call(1)) == b"reply"
    with pytest.raises(IdempotencyKeyReused) as caught:
        store.reply(Call.of(call(1).idempotency_key, b"another request"))
    assert caught.value.metadata["revision"] == "1"
    store.close()


def test_a_call_that_changed_nothing_has_a_reply_too(url):
    store = open_store(url)
    store.append(None, call(7), b"nothing new")
    assert store.reply(call(7)) == b"nothing new"
    assert store.revisions() == []
    store.close()


def test_a_revision_and_its_reply_are_written_together_or_not_at_all(url):
    store = open_store(url)
    append(store, BASE)
    first = store.revisions()[0].link.vocabulary
    link = following(first, "y")
    with pytest.raises(StoreUnavailable):  # the key is taken, which the revision must feel
        store.append(link, call(1), b"reply")
    assert len(store.revisions()) == 1
    append(store, first)  # and the store goes on
    store.close()


def test_what_does_not_continue_the_newest_revision_is_not_written(url):
    store = open_store(url)
    first = append(store, BASE)
    append(store, first)
    with pytest.raises(RevisionConflict) as caught:
        store.append(following(first, "late"), call(9), b"reply")
    assert caught.value.metadata == {"expectedRevision": "1", "currentRevision": "2"}
    elsewhere = dataclasses.replace(first, revision=2, fingerprint="1" * 64)
    with pytest.raises(BrokenChainError):
        store.append(following(elsewhere, "z"), call(9), b"reply")
    assert store.reply(call(9)) is None
    assert len(store.revisions()) == 2
    store.close()


def test_a_block_that_raises_leaves_nothing_behind(url):
    store = open_store(url)

    def write_and_give_up():
        with store.writing() as log:
            log.append(following(BASE, "x"), call(1), b"reply")
            assert log.reply(call(1)) == b"reply"
            raise InvalidField("tokens", "are bad")

    with pytest.raises(InvalidField):
        write_and_give_up()
    assert store.revisions() == []
    assert store.reply(call(1)) is None
    store.close()


def test_an_older_store_is_brought_to_this_version(path, file_url):
    with sqlite3.connect(path) as connection:
        connection.executescript((DATA / "store_version_1.sql").read_text())
    connection.close()
    for _ in range(2):  # the second time there is nothing to do
        store = open_store(file_url)
        newest = store.verified()[-1].link.vocabulary
        assert newest.revision == 2
        assert store.reply(call(7)) == b"nothing new"
        assert version_of(store) == schema.VERSION
        store.close()
    store = open_store(file_url)
    append(store, newest)
    assert forked(store)
    store.close()


def take_back(url):
    """Makes a store what version 1 made."""
    execute(url, sa.text("DROP INDEX revision_parent"))
    for table in (schema.revision, schema.reply):
        execute(url, sa.text(f"ALTER TABLE {table.name} DROP COLUMN {schema.DIGEST}"))
    execute(url, sa.update(schema.store).values(schema_version=1))


def test_a_new_store_has_what_an_older_one_receives(url):
    open_store(url).close()
    take_back(url)
    store = open_store(url)
    append(store, BASE)
    assert version_of(store) == schema.VERSION
    assert forked(store)
    store.close()


def test_a_migration_that_fails_changes_nothing(url):
    open_store(url).close()
    execute(url, sa.update(schema.store).values(schema_version=1))  # its steps are done already
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(url)
    take_back(url)
    open_store(url).close()


def test_a_reply_that_was_changed_is_not_given(url):
    store = open_store(url)
    append(store, BASE)
    store.close()
    execute(url, sa.update(schema.reply).values(response=b"another"))
    store = open_store(url)
    with pytest.raises(BrokenChainError):
        store.reply(call(1))
    with pytest.raises(BrokenChainError):
        store.verified()
    store.close()


def test_an_empty_file_is_a_lost_store_and_not_a_new_one(path, file_url):
    store = open_store(file_url)
    append(store, BASE)
    store.close()
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"is an empty file.*lockstep vocab import.*remove it"):
        open_store(file_url)
    assert path.read_bytes() == b""
    path.unlink()
    assert open_store(file_url).verified() == []


def test_a_store_that_is_emptied_while_it_serves_is_not_written_to(path, file_url):
    store = open_store(file_url)
    first = append(store, BASE)
    store.database.engine.dispose()
    path.write_bytes(b"")
    with pytest.raises(StoreUnavailable) as caught:
        append(store, first)
    assert caught.value.metadata["cause"] == "damaged"
    store.close()


def test_a_store_that_was_being_made_when_its_process_ended_is_made(path, file_url):
    path.with_name("vocabulary.sqlite-new").touch()
    path.touch()
    open_store(file_url).close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("table", [schema.store, schema.revision, schema.reply], ids=str)
def test_a_store_without_one_of_its_tables_is_not_taken_for_a_new_one(url, table):
    store = open_store(url)
    append(store, BASE)
    store.close()
    execute(url, sa.schema.DropTable(table))
    with pytest.raises(StoreError, match="lockstep vocab import"):
        open_store(url)


def test_a_store_of_a_newer_version_is_refused(url):
    open_store(url).close()
    execute(url, sa.update(schema.store).values(schema_version=schema.VERSION + 1))
    with pytest.raises(StoreError, match=f"version {schema.VERSION + 1} of the schema"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://host/database", "must begin with"),
        ("vocabulary.db", "must be a URL"),
        ("postgresql://host:port/database", "must be a URL"),
        ("postgresql://user:secret@word@host/database", "%40"),
        ("postgresql://user@host/database?password=secret", "--store-password-file"),
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url, problem):
    with pytest.raises(StoreError, match=problem) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_another_tokenizer_is_refused_with_the_way_out(url):
    open_store(url).close()
    with pytest.raises(StoreError, match="--store"):
        open_store(url, Reference("tiny", 0, "1" * 64, 10))


def test_a_store_in_use_is_refused(file_url):
    store = open_store(file_url)
    append(store, BASE)
    program = (
        "from tokenizer_service.store import Store, StoreError\n"
        "from vocabulary import Reference\n"
        "try:\n"
        f"    Store('{file_url}', Reference('tiny', 0, '0' * 64, 10), observe=print)\n"
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
    with pytest.raises(StoreError, match="lockstep vocab import"):
        open_store(f"sqlite:///{path}")


OTHER = canonical.encode_change(Change(tokens=(NewToken(id=11, token=AddedToken("y")),)))


@pytest.mark.parametrize(
    "damage",
    [
        sa.update(schema.revision).values(change=OTHER),
        sa.update(schema.revision).values(change=b"\0"),
        sa.update(schema.revision).values(size=99),
        sa.update(schema.revision).values(parent_fingerprint="f"),
        sa.delete(schema.revision),
    ],
    ids=["another change", "no change", "another size", "another parent", "missing"],
)
def test_a_damaged_revision_breaks_the_chain(url, damage):
    store = open_store(url)
    newest = BASE
    for _ in range(3):
        newest = append(store, newest)
    store.close()
    execute(url, damage.where(schema.revision.c.revision == 2))
    store = open_store(url)
    with pytest.raises(BrokenChainError):
        store.verified()
    store.close()


def test_commits_are_synchronous_and_without_a_write_ahead_log(file_url):
    store = open_store(file_url)
    names = ("journal_mode", "synchronous", "locking_mode")
    pragmas = {name: pragma(store, name) for name in names}
    assert pragmas == {"journal_mode": "delete", "synchronous": 3, "locking_mode": "exclusive"}
    store.close()


def test_a_full_disk_is_an_error_that_can_be_retried(file_url):
    observed = []
    store = open_store(file_url, observe=lambda *what: observed.append(what[:2]))
    pragma(store, f"max_page_count = {pragma(store, 'page_count')}")

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
    pragma(store, "max_page_count = 100000")
    assert append(store, newest).revision == newest.revision + 1
    store.close()


def test_another_log_is_written_as_it_was_and_known_replies_are_left(url):
    first = open_store("sqlite://")
    append(first, append(first, BASE), "y")
    first.append(None, call(7), b"nothing new")
    second = open_store(url)
    second.append(None, call(7), b"my own reply")
    assert second.extend(first.revisions(), first.replies("", 2, 100)) == 2
    assert second.verified() == first.verified()
    assert second.reply(call(1)) == b"reply"
    assert second.reply(call(7)) == b"my own reply"
    first.close()
    second.close()


def test_another_log_is_written_whole_or_not_at_all(url):
    first = open_store("sqlite://")
    append(first, append(first, BASE), "y")
    second = open_store(url)
    taken = first.revisions()
    with pytest.raises(StoreUnavailable):
        second.extend([*taken, taken[0]], first.replies("", 2, 100))
    assert second.revisions() == []
    assert second.reply(call(1)) is None
    first.close()
    second.close()


def test_revisions_and_replies_are_read_in_pages(url):
    store = open_store(url)
    append(store, append(store, append(store, BASE), "y"), "z")
    assert [one.link.vocabulary.revision for one in store.revisions(1, 1)] == [2]
    keys = [reply.call.idempotency_key[-1] for reply in store.replies("", 2, 100)]
    assert keys == ["1", "2"]
    assert [r.revision for r in store.replies(call(1).idempotency_key, 3, 1)] == [2]
    store.close()


def test_another_log_must_continue_the_newest_revision(url):
    store = open_store(url)
    append(store, append(store, BASE), "y")
    with pytest.raises(RevisionConflict):
        store.extend(store.revisions()[1:], ())
    assert len(store.revisions()) == 2
    store.close()
