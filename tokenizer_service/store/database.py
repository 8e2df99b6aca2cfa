"""What differs between the databases that a store can be in."""

from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from rpc.errors import StoreCause
from tokenizer_service.store.listener import Listener
from tokenizer_service.store.postgresql import PostgreSQL
from tokenizer_service.store.sqlite import SQLite

SQLITE = "sqlite"
PSYCOPG = "postgresql+psycopg"


class Database(Protocol):
    """One database. Everything else about the log is the same in all of them."""

    @property
    def engine(self) -> sa.Engine:
        """Its connections, which threads take in turns."""

    def lock(self, connection: sa.Connection) -> None:
        """Waits for the lock of writers, and holds it until the transaction ends."""

    def announce(self, connection: sa.Connection) -> None:
        """Tells other processes, when the transaction ends, that there is a revision."""

    def distrust(self, connection: sa.Connection) -> None:
        """After a failure: forgets what a connection saw, which may not be on the disk."""

    def damage(self, connection: sa.Connection) -> str | None:
        """Looks at what is below the tables; returns what is wrong with it, if anything."""

    def cause(self, error: SQLAlchemyError) -> StoreCause:
        """Says in a word why the store failed."""

    def listener(self, interval_s: float) -> Listener | None:
        """Returns a listener for announcements; None if the store has a single writer.

        Args:
            interval_s: seconds between looks when nothing was announced.
        """

    def reason(self, error: SQLAlchemyError) -> str:
        """Says why the store failed, and what to do. Holds no password."""

    def damaged(self) -> str:
        """Says that the store is not what was written, and what to do. Holds no password."""


def parse_url(text: str) -> sa.URL:
    """Reads where a store is.

    Raises:
        ValueError: it does not name a store. The text never holds the password.
    """
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("must be a URL such as postgresql://user@host:5432/database") from None
    if url.drivername == "postgresql":
        url = url.set(drivername=PSYCOPG)
    if url.drivername not in (SQLITE, PSYCOPG):
        raise ValueError("must begin with sqlite:// or postgresql://")
    if "@" in (url.host or "") or "password" in url.query:
        raise ValueError(
            "must have its password between user and host, with %40 for @ and %2F for /, "
            "or in --store-password-file"
        )
    return url


def file_of(url: sa.URL) -> Path | None:
    """Returns the file of a store; None for memory and for a server."""
    if url.drivername != SQLITE or url.database in (None, "", ":memory:"):
        return None
    return Path(url.database).absolute()


def open_database(url: sa.URL, password_file: Path | None) -> Database:
    """Returns the database that a URL names; connects to it when it is first used."""
    return SQLite(url) if url.drivername == SQLITE else PostgreSQL(url, password_file)
