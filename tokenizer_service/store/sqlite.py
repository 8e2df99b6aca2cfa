"""SQLite: one file that one process owns.

`journal_mode=DELETE` and `synchronous=EXTRA`: the write-ahead log can lose committed
data in versions before 3.51.3, which most Python builds have. The file is locked for
as long as it is open, so that two services never share one.

After a sync that failed, the kernel shows what was written and may never put it on the
disk. So nothing that a process or a connection before this one left is believed: each
connection first writes and syncs the header of the file, the journal and the folder,
and one that saw an error is closed.

A file of 0 bytes is what is left of a store that was lost, unless it is about to become
one. So a mark stands next to the file (`NAME-new`) from before it is made until it has
bytes that are on the disk, and an empty file without one is refused.
"""

import errno
import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from rpc.errors import StoreCause
from tokenizer_service.store import durable_folder

# What the header of a journal fills.
_SECTOR = 512

_RESTORE = (
    "Restore it from an export: start with a new file as --store, then `lockstep vocab import`."
)

# By primary result code: the cause that callers are told, and what the operator is.
_FAILURES: dict[int, tuple[StoreCause, str]] = {
    sqlite3.SQLITE_BUSY: ("busy", "is in use by another process. A store has one service."),
    sqlite3.SQLITE_READONLY: ("read_only", "cannot be written to: its file or disk is read-only."),
    sqlite3.SQLITE_FULL: ("disk_full", "cannot be written to: the disk is full."),
    sqlite3.SQLITE_IOERR: ("disk_error", "cannot be used: the disk reports an error."),
    sqlite3.SQLITE_CORRUPT: ("damaged", f"is damaged. {_RESTORE}"),
    sqlite3.SQLITE_EMPTY: (
        "damaged",
        "is an empty file, so its content is lost. Put back a copy of the file, or remove the "
        "file and import an export with `lockstep vocab import`. If it never held "
        "anything, just remove it.",
    ),
    sqlite3.SQLITE_NOTADB: ("damaged", f"is damaged, or is not a store. {_RESTORE}"),
}


class SQLite:
    """A file, or memory, behind one connection."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._in_memory = url.database in (None, "", ":memory:")
        self._file = Path(url.database or ":memory:").absolute()
        self._mark = self._file.with_name(f"{self._file.name}-new")
        self.engine = sa.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"check_same_thread": False, "timeout": 1.0},
        )
        sa.event.listen(self.engine, "do_connect", self._announce_file)
        sa.event.listen(self.engine, "connect", self._configure)
        sa.event.listen(self.engine, "begin", _lock_at_once)

    def lock(self, connection: sa.Connection) -> None:
        """Does nothing: every transaction has the file for itself."""

    def announce(self, connection: sa.Connection) -> None:
        """Does nothing: the store has a single writer."""

    def distrust(self, connection: sa.Connection) -> None:
        """Closes the connection, so that the next transaction has one that knows nothing."""
        if not self._in_memory:
            connection.invalidate()

    def damage(self, connection: sa.Connection) -> str | None:
        """Reads every page from the file; returns what is wrong with one of them."""
        connection.exec_driver_sql("PRAGMA shrink_memory")  # or it would look at its cache
        found: str = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        return None if found == "ok" else found

    def cause(self, error: SQLAlchemyError) -> StoreCause:
        """Says in a word why the store failed."""
        return _FAILURES.get(_code(error), ("unknown", ""))[0]

    def listener(self, interval_s: float) -> None:
        """Returns None: the store has a single writer."""

    def reason(self, error: SQLAlchemyError) -> str:
        """Says why the store failed, and what to do."""
        if failure := _FAILURES.get(_code(error)):
            return f"The store {self._url} {failure[1]}"
        cause = getattr(error, "orig", None) or type(error).__name__
        return f"The store {self._url} cannot be opened ({cause}); check --store."

    def damaged(self) -> str:
        """Says that the store is not what was written, and what to do."""
        return f"The store {self._url} {_FAILURES[sqlite3.SQLITE_CORRUPT][1]}"

    def _announce_file(self, *_: object) -> None:
        """Marks a file that SQLite is about to make; refuses an empty one without a mark."""
        if self._in_memory:
            return
        try:
            if not self._file.exists():
                self._mark.touch()
                durable_folder.sync(self._mark.parent)
            # In this order: another process may be making the file, which takes the mark last.
            elif not self._mark.exists() and self._file.stat().st_size == 0:
                raise _failure("it is empty", sqlite3.SQLITE_EMPTY)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            code = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_CANTOPEN
            raise _failure(f"{self._mark}: {error.strerror}", code) from None

    def _configure(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # this module begins transactions, not the driver
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=EXTRA"):
            connection.execute(f"PRAGMA {pragma}")
        if self._in_memory:
            return
        connection.execute("BEGIN EXCLUSIVE")  # plays back a journal that is to be
        self._write_journal_again()
        connection.execute("COMMIT")  # which keeps the lock
        connection.execute("PRAGMA user_version=1")  # a write whose value is never read
        try:
            # SQLite does so, too, when it makes the journal, but ignores that it failed.
            durable_folder.sync(self._file.parent)
            self._mark.unlink(missing_ok=True)
        except OSError as error:
            reason = f"{self._file.parent} cannot be synced: {error.strerror}"
            raise _failure(reason, sqlite3.SQLITE_IOERR) from None

    def _write_journal_again(self) -> None:
        """Puts the journal's header on the disk as it is seen.

        If the sync that ended the last transaction failed, the disk may still have a journal
        that is to be played back, and the next one would be written over its pages.
        """
        journal = self._file.with_name(f"{self._file.name}-journal")
        if not journal.exists():
            return
        try:
            with journal.open("r+b", buffering=0) as file:
                header = file.read(_SECTOR)
                file.seek(0)
                file.write(header)
                os.fsync(file.fileno())
        except OSError as error:
            reason = f"{journal} cannot be synced: {error.strerror}"
            raise _failure(reason, sqlite3.SQLITE_IOERR) from None


def _failure(reason: str, code: int) -> sqlite3.OperationalError:
    """Makes an error of this module's own look like one of SQLite."""
    failure = sqlite3.OperationalError(reason)
    failure.sqlite_errorcode = code
    return failure


def _code(error: SQLAlchemyError) -> int:
    """Returns the primary result code of SQLite, 0 if there is none."""
    cause = getattr(error, "orig", None)
    if "Could not decode to UTF-8" in str(cause):  # the driver's own words
        return sqlite3.SQLITE_CORRUPT
    code: int = getattr(cause, "sqlite_errorcode", 0)
    return code & 0xFF


def _lock_at_once(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
