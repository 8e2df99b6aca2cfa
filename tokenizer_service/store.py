"""The durable log of vocabulary revisions.

Rows are only ever added. A transaction writes a revision together with the reply to
the call that made it, so a repeated call finds both or neither, and it is on the
disk when `append` returns.

SQLite runs with `journal_mode=DELETE` and `synchronous=EXTRA`: its write-ahead log
can lose committed data in versions before 3.51.3, which most Python builds have. The
file is locked for as long as it is open, so that two services never share one.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from rpc.errors import IdempotencyKeyReused, StoreUnavailable
from tokenizer_service.timestamps import from_us, to_us
from vocabulary import BrokenChainError, Change, Link, Reference, canonical, verify

_T = TypeVar("_T")

# Raised when the meaning of a table changes.
_SCHEMA_VERSION = 1

_metadata = sa.MetaData()
_store = sa.Table(
    "store",
    _metadata,
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("tokenizer_id", sa.Text, nullable=False),
    sa.Column("base_fingerprint", sa.Text, nullable=False),
    sa.Column("base_size", sa.Integer, nullable=False),
)
_revision = sa.Table(
    "revision",
    _metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent_fingerprint", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("change", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
)
_reply = sa.Table(
    "reply",
    _metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("request_sha256", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
)


class StoreError(Exception):
    """The store cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """One revision and when it was made durable."""

    link: Link
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Call:
    """A changing call as the caller identifies it.

    Attributes:
        idempotency_key: chosen by the caller.
        request_sha256: of the request, so that a key is not used for two.
    """

    idempotency_key: str
    request_sha256: str

    @classmethod
    def of(cls, idempotency_key: str, request: bytes) -> "Call":
        """Identifies a call by its key and the bytes of its request."""
        return cls(idempotency_key, hashlib.sha256(request).hexdigest())


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The reply to a call, kept for its repetitions.

    Attributes:
        call: the call that was answered.
        revision: the newest one when it was answered.
        response: the bytes of the reply.
        create_time: when it was made durable.
    """

    call: Call
    revision: int
    response: bytes
    create_time: datetime


class Store:
    """One tokenizer's log. Every method blocks; one thread at a time may call them."""

    def __init__(
        self, url: str, base: Reference, *, observe: Callable[[str, str, float], None]
    ) -> None:
        """Opens a store and makes it if it does not exist.

        Args:
            url: an SQLAlchemy URL, `sqlite:///file` or `sqlite://` for memory.
            base: revision 0. A store belongs to one.
            observe: told the operation, its result and its seconds.

        Raises:
            StoreError: the store cannot be opened or belongs to another tokenizer.
        """
        self._observe = observe
        self._base = base
        self._engine = sa.create_engine(
            url, poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 1.0}
        )
        sa.event.listen(self._engine, "connect", _configure_sqlite)
        sa.event.listen(self._engine, "begin", _lock_at_once)
        try:
            self._connection = self._engine.connect()
            self._claim()
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise StoreError(_reason(url, error)) from None
        except StoreError:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Closes the store and lets go of its file."""
        self._connection.close()
        self._engine.dispose()

    def revisions(self, after: int = 0, limit: int | None = None) -> list[StoredRevision]:
        """Reads the revisions after one, oldest first, and at most `limit` of them.

        Raises:
            BrokenChainError: one of them cannot be read.
            StoreUnavailable: the store failed.
        """
        query = sa.select(_revision).where(_revision.c.revision > after)
        query = query.order_by(_revision.c.revision).limit(limit)
        rows = self._run("read", lambda: self._connection.execute(query).all())
        return [self._stored(row) for row in rows]

    def replies(self, after_key: str, until: int, limit: int) -> list[StoredReply]:
        """Reads replies in order of their keys.

        Args:
            after_key: the last key that was read before, empty for none.
            until: the newest revision whose replies are read.
            limit: most replies to read.

        Raises:
            StoreUnavailable: the store failed.
        """
        query = sa.select(_reply).where(
            _reply.c.idempotency_key > after_key, _reply.c.revision <= until
        )
        query = query.order_by(_reply.c.idempotency_key).limit(limit)
        rows = self._run("read", lambda: self._connection.execute(query).all())
        return [
            StoredReply(
                Call(row.idempotency_key, row.request_sha256),
                row.revision,
                row.response,
                from_us(row.create_time_us),
            )
            for row in rows
        ]

    def verified(self) -> list[StoredRevision]:
        """Reads all revisions and recomputes their chain.

        Raises:
            BrokenChainError: a revision is not what it was when it was written.
            StoreUnavailable: the store failed.
        """
        stored = self.revisions()
        verify(self._base, [revision.link for revision in stored])
        return stored

    def reply(self, call: Call) -> bytes | None:
        """Returns the reply to a call that was answered before.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
            StoreUnavailable: the store failed.
        """
        query = sa.select(_reply).where(_reply.c.idempotency_key == call.idempotency_key)
        row = self._run("reply", lambda: self._connection.execute(query).one_or_none())
        if row is None:
            return None
        if row.request_sha256 != call.request_sha256:
            raise IdempotencyKeyReused(row.revision)
        response: bytes = row.response
        return response

    def append(self, link: Link | None, call: Call, response: bytes) -> datetime:
        """Writes a revision, if there is a new one, and the reply. Durable on return.

        Args:
            link: the revision, None when the call changed nothing.
            call: the call that is answered.
            response: the reply.

        Returns:
            When it was written.

        Raises:
            StoreUnavailable: the store failed; nothing was written, or `revisions`
                shows that it was.
        """
        now = time.time_ns() // 1000
        rows: list[tuple[sa.Table, dict[str, Any]]] = []
        if link is not None:
            rows.append((_revision, _columns(link, now)))
        revision = self._newest() if link is None else link.vocabulary.revision
        reply = StoredReply(call, revision, response, from_us(now))
        rows.append((_reply, _reply_columns(reply)))

        def write() -> None:
            for table, columns in rows:
                self._connection.execute(sa.insert(table).values(**columns))

        self._run("append", write)
        return from_us(now)

    def extend(self, revisions: Sequence[StoredRevision], replies: Iterable[StoredReply]) -> int:
        """Writes revisions and replies of another log, in one transaction.

        A reply whose key is there already is left as it is here.

        Args:
            revisions: what follows the newest revision here, verified.
            replies: replies given at these revisions or earlier ones.

        Returns:
            How many replies were new.

        Raises:
            StoreUnavailable: the store failed; nothing was written, or `revisions`
                shows that it was.
        """

        def write() -> int:
            for stored in revisions:
                row = _columns(stored.link, to_us(stored.create_time))
                self._connection.execute(sa.insert(_revision).values(**row))
            known = set(self._connection.execute(sa.select(_reply.c.idempotency_key)).scalars())
            new = [reply for reply in replies if reply.call.idempotency_key not in known]
            for reply in new:
                self._connection.execute(sa.insert(_reply).values(**_reply_columns(reply)))
            return len(new)

        return self._run("append", write)

    def _newest(self) -> int:
        query = sa.select(sa.func.coalesce(sa.func.max(_revision.c.revision), 0))
        return int(self._run("read", lambda: self._connection.execute(query).scalar_one()))

    def _claim(self) -> None:
        """Makes the tables, or checks whose they are."""
        expected = {
            "schema_version": _SCHEMA_VERSION,
            "tokenizer_id": self._base.tokenizer_id,
            "base_fingerprint": self._base.fingerprint,
            "base_size": self._base.size,
        }
        with self._connection.begin():
            _metadata.create_all(self._connection)
            row = self._connection.execute(sa.select(_store)).one_or_none()
            if row is None:
                self._connection.execute(sa.insert(_store).values(**expected))
                return
        if dict(row._mapping) != expected:
            raise StoreError(
                f"The store belongs to another tokenizer ({row.tokenizer_id}, base fingerprint "
                f"{row.base_fingerprint[:12]}, {row.base_size} ids). Name another file with "
                "--store, or serve that tokenizer."
            )

    def _run(self, operation: str, work: Callable[[], _T]) -> _T:
        """Runs work in a transaction of its own and times it."""
        start = time.perf_counter()
        result = "error"
        try:
            with self._connection.begin():
                value = work()
            result = "ok"
        except SQLAlchemyError:
            with suppress(SQLAlchemyError):
                self._connection.rollback()
            raise StoreUnavailable from None
        finally:
            self._observe(operation, result, time.perf_counter() - start)
        return value

    def _stored(self, row: sa.Row[Any]) -> StoredRevision:
        try:
            change = canonical.decode_change(row.change)
        except ValueError:
            raise BrokenChainError(row.revision, "it cannot be read") from None
        vocabulary = Reference(self._base.tokenizer_id, row.revision, row.fingerprint, row.size)
        link = Link(row.parent_fingerprint, change, vocabulary)
        return StoredRevision(link, from_us(row.create_time_us))


def _columns(link: Link, now_us: int) -> dict[str, Any]:
    change: Change = link.change
    return {
        "revision": link.vocabulary.revision,
        "parent_fingerprint": link.parent_fingerprint,
        "fingerprint": link.vocabulary.fingerprint,
        "size": link.vocabulary.size,
        "change": canonical.encode_change(change),
        "create_time_us": now_us,
    }


def _reply_columns(reply: StoredReply) -> dict[str, Any]:
    return {
        "idempotency_key": reply.call.idempotency_key,
        "request_sha256": reply.call.request_sha256,
        "revision": reply.revision,
        "response": reply.response,
        "create_time_us": to_us(reply.create_time),
    }


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # this module begins transactions, not the driver
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=EXTRA"):
        connection.execute(f"PRAGMA {pragma}")


def _lock_at_once(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _reason(url: str, error: SQLAlchemyError) -> str:
    if "locked" in str(error):
        return f"The store {url} is in use by another process. A store has one service."
    return f"The store {url} cannot be opened ({type(error).__name__}); check --store."
