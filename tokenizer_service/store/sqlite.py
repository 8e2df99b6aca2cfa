"""SQLite: one file that one process owns.

`journal_mode=DELETE` and `synchronous=EXTRA`: the write-ahead log can lose committed
data in versions before 3.51.3, which most Python builds have. The file is locked for
as long as it is open, so that two services never share one.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool


def engine(url: sa.URL) -> sa.Engine:
    """Returns an engine with one connection, which threads take in turns."""
    made = sa.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 1.0},
    )
    sa.event.listen(made, "connect", _configure)
    sa.event.listen(made, "begin", _lock_at_once)
    return made


def reason(url: sa.URL, error: SQLAlchemyError) -> str:
    """Says why a store could not be opened, and what to do."""
    if "locked" in str(error):
        return f"The store {url} is in use by another process. A store has one service."
    return f"The store {url} cannot be opened ({type(error).__name__}); check --store."


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # this module begins transactions, not the driver
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=EXTRA"):
        connection.execute(f"PRAGMA {pragma}")


def _lock_at_once(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
