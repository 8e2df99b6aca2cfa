"""What is read and written in one transaction."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rpc.errors import IdempotencyKeyReused, RevisionConflict
from tokenizer_service.store import schema
from tokenizer_service.store.records import Call, StoredReply, StoredRevision
from tokenizer_service.store.timestamps import from_us, to_us
from vocabulary import BrokenChainError, Link, Reference, canonical

Observe = Callable[[str, str, float], None]
"""Is told an operation, its result and its seconds."""


class Transaction:
    """One view of the log. What is appended is there for others when it ends well."""

    def __init__(self, connection: sa.Connection, base: Reference, observe: Observe) -> None:
        self._connection = connection
        self._base = base
        self._observe = observe
        self._has_grown = False

    @property
    def has_grown(self) -> bool:
        """Whether a revision was appended."""
        return self._has_grown

    def revisions(self, after: int = 0, limit: int | None = None) -> list[StoredRevision]:
        """Reads the revisions after one, oldest first, and at most `limit` of them.

        Raises:
            BrokenChainError: one of them is not what was written.
        """
        table = schema.revision
        query = sa.select(table).where(table.c.revision > after).order_by(table.c.revision)
        with timed(self._observe, "read"):
            rows = self._connection.execute(query.limit(limit)).all()
        return [self._stored(row) for row in rows]

    def replies(self, after_key: str, until: int, limit: int) -> list[StoredReply]:
        """Reads replies in order of their keys.

        Args:
            after_key: the last key that was read before, empty for none.
            until: the newest revision whose replies are read.
            limit: most replies to read.

        Raises:
            BrokenChainError: one of them is not what was written.
        """
        table = schema.reply
        query = sa.select(table).where(
            table.c.idempotency_key > after_key, table.c.revision <= until
        )
        with timed(self._observe, "read"):
            rows = self._connection.execute(
                query.order_by(table.c.idempotency_key).limit(limit)
            ).all()
        return [_reply(row) for row in rows]

    def check_pages(self, damage: Callable[[sa.Connection], str | None]) -> None:
        """Looks at what is below the tables.

        Raises:
            BrokenChainError: it is damaged.
        """
        if damage(self._connection) is not None:
            raise BrokenChainError(1, "the database has damaged pages")

    def reply(self, call: Call) -> bytes | None:
        """Returns the reply to a call that was answered before.

        Raises:
            BrokenChainError: the reply is not what was written.
            IdempotencyKeyReused: the key was used for another request.
        """
        table = schema.reply
        query = sa.select(table).where(table.c.idempotency_key == call.idempotency_key)
        with timed(self._observe, "reply"):
            row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        stored = _reply(row)
        if stored.call != call:
            raise IdempotencyKeyReused(stored.revision)
        return stored.response

    def append(self, link: Link | None, call: Call, response: bytes) -> datetime:
        """Writes a revision, if there is a new one, and the reply.

        Args:
            link: the revision, None when the call changed nothing.
            call: the call that is answered.
            response: the reply.

        Returns:
            When it was written.

        Raises:
            RevisionConflict: the link does not continue the newest revision.
            BrokenChainError: its parent is not the newest revision, whose number it has.
        """
        now = from_us(time.time_ns() // 1000)
        with timed(self._observe, "append"):
            newest, fingerprint = self._newest()
            if link is not None:
                _check_parent(link, newest, fingerprint)
                newest = link.vocabulary.revision
                self._insert(StoredRevision(link, now))
            self._insert(StoredReply(call, newest, response, now))
        return now

    def extend(self, revisions: Sequence[StoredRevision], replies: Iterable[StoredReply]) -> int:
        """Writes revisions and replies of another log.

        A reply whose key is there already is left as it is here.

        Args:
            revisions: what follows the newest revision here, verified.
            replies: replies given at these revisions or earlier ones.

        Returns:
            How many replies were new.

        Raises:
            RevisionConflict: the revisions do not continue the newest one.
            BrokenChainError: their parent is not the newest one, whose number it has.
        """
        with timed(self._observe, "append"):
            if revisions:
                _check_parent(revisions[0].link, *self._newest())
            for stored in revisions:
                self._insert(stored)
            query = sa.select(schema.reply.c.idempotency_key)
            known = set(self._connection.execute(query).scalars())
            new = [reply for reply in replies if reply.call.idempotency_key not in known]
            for reply in new:
                self._insert(reply)
        return len(new)

    def _insert(self, record: StoredRevision | StoredReply) -> None:
        if isinstance(record, StoredRevision):
            table, columns = schema.revision, _revision_columns(record)
            self._has_grown = True
        else:
            table, columns = schema.reply, _reply_columns(record)
        row = {**columns, schema.DIGEST: schema.digest(columns)}
        self._connection.execute(sa.insert(table).values(**row))

    def _newest(self) -> tuple[int, str]:
        table = schema.revision
        columns = sa.select(table.c.revision, table.c.fingerprint)
        query = columns.order_by(table.c.revision.desc()).limit(1)
        row = self._connection.execute(query).one_or_none()
        return (0, self._base.fingerprint) if row is None else (row.revision, row.fingerprint)

    def _stored(self, row: sa.Row[Any]) -> StoredRevision:
        schema.check_digest(row)
        try:
            change = canonical.decode_change(row.change)
        except ValueError:
            raise BrokenChainError(row.revision, "it cannot be read") from None
        vocabulary = Reference(self._base.tokenizer_id, row.revision, row.fingerprint, row.size)
        link = Link(row.parent_fingerprint, change, vocabulary)
        return StoredRevision(link, from_us(row.create_time_us))


@contextmanager
def timed(observe: Observe, operation: str) -> Iterator[None]:
    """Reports how long the block took and whether it raised."""
    start = time.perf_counter()
    result = "error"
    try:
        yield
        result = "ok"
    finally:
        observe(operation, result, time.perf_counter() - start)


def _check_parent(link: Link, newest: int, fingerprint: str) -> None:
    parent = link.vocabulary.revision - 1
    if parent != newest:
        raise RevisionConflict(expected=parent, current=newest)
    if link.parent_fingerprint != fingerprint:
        raise BrokenChainError(newest, "the store has another in its place")


def _reply(row: sa.Row[Any]) -> StoredReply:
    schema.check_digest(row)
    call = Call(row.idempotency_key, row.request_sha256)
    return StoredReply(call, row.revision, row.response, from_us(row.create_time_us))


def _reply_columns(reply: StoredReply) -> dict[str, Any]:
    return {
        "idempotency_key": reply.call.idempotency_key,
        "request_sha256": reply.call.request_sha256,
        "revision": reply.revision,
        "response": reply.response,
        "create_time_us": to_us(reply.create_time),
    }


def _revision_columns(stored: StoredRevision) -> dict[str, Any]:
    link = stored.link
    return {
        "revision": link.vocabulary.revision,
        "parent_fingerprint": link.parent_fingerprint,
        "fingerprint": link.vocabulary.fingerprint,
        "size": link.vocabulary.size,
        "change": canonical.encode_change(link.change),
        "create_time_us": to_us(stored.create_time),
    }
