"""What the store asks of a PostgreSQL server, and what it tells nobody."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from rpc.errors import StoreUnavailable
from tests.postgresql import PASSWORD, running_postgresql
from tokenizer_service.settings import TokenizerSettings
from tokenizer_service.store import Call, Store, StoreError
from vocabulary import Reference

BASE = Reference("tiny", 0, "0" * 64, 10)
CALL = Call.of("key", b"request")


def open_store(url, **options):
    return Store(url, BASE, observe=lambda *_: None, **options)


@pytest.fixture
def database(postgresql):
    return postgresql.new_database()


@pytest.fixture(scope="module")
def own_server():
    """A server that tests stop and start again."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def stopped(own_server):
    own_server.stop()
    yield own_server
    own_server.stop()
    (own_server.folder / "standby.signal").unlink(missing_ok=True)
    own_server.start()


@pytest.mark.parametrize("setting", ["fsync=off", "full_page_writes=off"])
def test_a_server_that_may_lose_what_it_acknowledged_is_refused(stopped, setting):
    stopped.start(setting)
    with pytest.raises(StoreError, match="could lose"):
        open_store(stopped.url("postgres"))


def test_a_standby_is_refused(stopped):
    (stopped.folder / "standby.signal").touch()
    stopped.start()
    with pytest.raises(StoreError, match="standby"):
        open_store(stopped.url("postgres"))


def test_a_database_that_is_read_only_is_refused(postgresql, database):
    with postgresql.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="read-only"):
        open_store(postgresql.url(database))


@pytest.mark.parametrize(
    ("default", "effective"),
    [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_commits_wait_for_the_disk_whatever_the_default(postgresql, database, default, effective):
    with postgresql.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = {default}")
        connection.execute(
            f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'"
        )
    store = open_store(postgresql.url(database))
    with store.database.engine.begin() as connection:
        shown = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
        isolation = connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()
    assert (shown, isolation) == (effective, "read committed")
    store.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_a_server_that_comes_back_is_used_again(own_server, how):
    store = open_store(own_server.url(own_server.new_database()))
    store.append(None, CALL, b"reply")
    own_server.stop(how)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                store.append(None, Call.of("other", b"request"), b"reply")
        own_server.start()
        assert store.reply(CALL) == b"reply"
    assert caught.value.retry_delay_s is not None
    # Once each, though it was asked three times.
    assert [event["event"] for event in logs] == ["store_unavailable", "store_available"]
    store.close()


def test_no_error_and_no_log_holds_the_password(postgresql, database):
    wrong = sa.make_url(postgresql.url(database)).set(password="secret/word")
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        open_store(wrong.render_as_string(hide_password=False))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        open_store("postgresql://user:secret@127.0.0.1:1/database")
    assert "secret" not in str(caught.value)
    for url in ("postgresql://user:secret/word@host/database", "postgresql://user:secret@host"):
        assert "secret" not in repr(TokenizerSettings(store=url).loggable())


def test_the_password_comes_from_a_file_that_may_change(postgresql, database, tmp_path):
    url = postgresql.url(database, password=False)
    file = tmp_path / "password"
    file.write_text("another")
    with pytest.raises(StoreError, match="authentication failed"):
        open_store(url, password_file=file)
    with pytest.raises(StoreError, match="--store-password-file"):
        open_store(url, password_file=tmp_path / "none")
    file.write_text(PASSWORD + "\n")
    store = open_store(url, password_file=file)
    store.append(None, CALL, b"reply")
    store.close()


def test_the_password_comes_from_where_libpq_looks(postgresql, database, tmp_path, monkeypatch):
    file = tmp_path / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:{postgresql.port}:{database}:lockstep:{escaped}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    open_store(postgresql.url(database, password=False)).close()


def test_replicas_that_start_at_once_make_one_store(postgresql):
    """Each would make the tables if it looked before another had made them."""
    num_replicas = 4
    for _ in range(5):
        url = postgresql.url(postgresql.new_database())
        ready = threading.Barrier(num_replicas)

        def start(url=url, ready=ready):
            ready.wait()
            open_store(url).close()

        with ThreadPoolExecutor(num_replicas) as pool:
            for started in [pool.submit(start) for _ in range(num_replicas)]:
                started.result()


def test_a_table_of_somebody_else_is_left_alone(postgresql, database):
    with postgresql.connect(database) as connection:
        connection.execute("CREATE TABLE store (street text)")
    with pytest.raises(StoreError, match="table store of another program"):
        open_store(postgresql.url(database))
    with postgresql.connect(database) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM revision")
