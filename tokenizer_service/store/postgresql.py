"""PostgreSQL: one database that several replicas write to.

Writers take turns: a lock that ends with the transaction. So a writer that lost its
connection in the middle of COMMIT, asking again for the lock, has it only when the
outcome is certain. Each session is told to wait for the disk, whatever the server's
default; servers that could lose what they acknowledged are refused.
"""

from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rpc.errors import StoreCause
from tokenizer_service.store.listener import Listener
from tokenizer_service.store.records import StoreError

CHANNEL = "lockstep_vocabulary"

_LOCK = int.from_bytes(b"lockstep")  # advisory locks have numbers

# A URL's own parameters win. A server that is gone is noticed within about ten seconds.
_PARAMETERS: dict[str, Any] = {
    "application_name": "lockstep-tokenizer",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# remote_apply waits for more than the disk. A process that stops while it holds the
# lock loses its session, and the others go on.
_PREPARE = """
SELECT pg_is_in_recovery(),
       current_setting('default_transaction_read_only')::bool,
       current_setting('fsync')::bool,
       current_setting('full_page_writes')::bool,
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                  WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
       set_config('lock_timeout', '15s', false),
       set_config('statement_timeout', '30s', false),
       set_config('idle_in_transaction_session_timeout', '10s', false)
"""


_CAUSES: dict[str | None, StoreCause] = {
    "53100": "disk_full",
    "58030": "disk_error",
    "25006": "read_only",
    "55P03": "busy",
    "XX001": "damaged",
    "XX002": "damaged",
}


class PostgreSQL:
    """One database of a PostgreSQL server, version 12 or newer."""

    def __init__(self, url: sa.URL, password_file: Path | None) -> None:
        self._url = url
        self._password_file = password_file
        self.engine = sa.create_engine(
            url,
            creator=lambda: psycopg.connect(**self.parameters()),
            isolation_level="READ COMMITTED",  # what is read under the lock is the newest
            pool_size=3,  # one writes, one reads, one verifies
            max_overflow=0,
            pool_pre_ping=True,
        )
        sa.event.listen(self.engine, "connect", _prepare)

    def parameters(self) -> dict[str, Any]:
        """Returns how to connect. The password's file is read each time: it may change.

        Raises:
            StoreError: the password's file cannot be read.
        """
        _, given = self.engine.dialect.create_connect_args(self._url)
        parameters = {**_PARAMETERS, **given}
        if self._password_file is not None:
            try:
                parameters["password"] = self._password_file.read_text().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise StoreError(
                    f"--store-password-file cannot be read ({type(error).__name__})."
                ) from None
        return parameters

    def lock(self, connection: sa.Connection) -> None:
        """Waits for the lock of writers, and holds it until the transaction ends."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))

    def announce(self, connection: sa.Connection) -> None:
        """Tells other replicas, when the transaction ends, that there is a revision."""
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))

    def distrust(self, connection: sa.Connection) -> None:
        """Does nothing: the server knows what is on its disk."""

    def damage(self, connection: sa.Connection) -> str | None:
        """Returns None: a server checks its own pages."""
        return None

    def cause(self, error: SQLAlchemyError) -> StoreCause:
        """Says in a word why the store failed."""
        return _CAUSES.get(getattr(getattr(error, "orig", None), "sqlstate", None), "unknown")

    def damaged(self) -> str:
        """Says that the store is not what was written, and what to do. Holds no password."""
        place = self._url.render_as_string(hide_password=True)
        return (
            f"The store {place} is damaged. Restore it from an export: start with an empty "
            "database as --store, then `lockstep vocab import`."
        )

    def listener(self, interval_s: float) -> Listener:
        """Returns what hears of other replicas' announcements."""
        return Listener(self.parameters, CHANNEL, interval_s)

    def reason(self, error: SQLAlchemyError) -> str:
        """Says why the store cannot be opened, and what to do. Holds no password."""
        place = self._url.render_as_string(hide_password=True)
        cause = getattr(error, "orig", None)
        # The server's own words hold user, host and database, and never the password.
        detail = str(cause).strip().partition("\n")[0] if cause else type(error).__name__
        if self._url.password:
            detail = detail.replace(str(self._url.password), "***")
        return f"The store {place} cannot be opened ({detail}); check --store."


def _prepare(connection: psycopg.Connection[tuple[Any, ...]], _: object) -> None:
    """Sets up a session, and refuses a server on which a revision is not safe.

    Raises:
        StoreError: it is a standby, is read-only or does not wait for the disk.
    """
    connection.autocommit = True  # settings made in a transaction would end with it
    row = connection.execute(_PREPARE).fetchone()
    connection.autocommit = False
    assert row is not None
    is_standby, read_only, fsync, full_page_writes = row[:4]
    problem = None
    if is_standby:
        problem = "is a standby, which cannot write: name the primary"
    elif read_only:
        problem = "is read-only for this user: see default_transaction_read_only"
    elif not (fsync and full_page_writes):
        problem = "could lose what it acknowledged: switch fsync and full_page_writes on"
    if problem:
        connection.close()
        raise StoreError(f"The server of the store {problem}.")
