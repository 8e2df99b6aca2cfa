"""SQLite: one file that one process owns.

`journal_mode=DELETE` and `synchronous=EXTRA`: the write-ahead log can lose committed
data in versions before 3.51.3, which most Python builds have. The file is locked for
as long as it is open, so that two services never share one.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool


class SQLite:
    """A file, or memory, behind one connection."""

    shared = False

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self.engine = sa.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"check_same_thread": False, "timeout": 1.0},
        )
        sa.event.listen(self.engine, "connect", _configure)
        sa.event.listen(self.engine, "begin", _lock_at_once)

    def lock(self, connection: sa.Connection) -> None:
        """Does nothing: every transaction has the file for itself."""

    def announce(self, connection: sa.Connection) -> None:
        """Does nothing: there is nobody else."""

    def reason(self, error: SQLAlchemyError) -> str:
        """Says why the store cannot be opened, and what to do."""
        if "locked" in str(error):
            return f"The store {self._url} is in use by another process. A store has one service."
        return f"The store {self._url} cannot be opened ({type(error).__name__}); check --store."


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # this module begins transactions, not the driver
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=EXTRA"):
        connection.execute(f"PRAGMA {pragma}")


def _lock_at_once(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
