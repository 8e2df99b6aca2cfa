"""The log itself: opened once, read and written in transactions.

Rows are only ever added. A transaction writes a revision together with the reply to
the call that made it, so a repeated call finds both or neither, and it is on the
disk when the transaction has ended.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from rpc.errors import StoreUnavailable
from tokenizer_service.store import schema
from tokenizer_service.store.database import Database, open_database, parse_url
from tokenizer_service.store.records import Call, StoredReply, StoredRevision, StoreError
from tokenizer_service.store.transaction import Observe, Transaction, timed
from vocabulary import BrokenChainError, Link, Reference, verify

_REPLIES_PER_PAGE = 256

_log = structlog.stdlib.get_logger(__name__)


class Store:
    """One tokenizer's log. Every method blocks; any thread may call them."""

    def __init__(
        self,
        url: str,
        base: Reference,
        *,
        observe: Observe,
        password_file: Path | None = None,
    ) -> None:
        """Opens a store, makes it if it does not exist, and migrates it if it is older.

        Args:
            url: `sqlite:///file`, `sqlite://` for memory, or `postgresql://...`.
            base: revision 0. A store belongs to one.
            observe: told the operation, its result and its seconds.
            password_file: file with the password of a PostgreSQL database.

        Raises:
            StoreError: the store cannot be opened or belongs to another tokenizer.
        """
        self._observe = observe
        self._base = base
        self._failing = False
        try:
            self._database = open_database(parse_url(url), password_file)
        except ValueError as error:
            raise StoreError(f"--store {error}") from None
        try:
            with self._database.engine.begin() as connection:
                self._database.lock(connection)
                if self._database.damage(connection) is not None:
                    raise BrokenChainError(1, "the database has damaged pages")
                schema.claim(connection, base)
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(self._database.reason(error)) from None
        except (BrokenChainError, UnicodeDecodeError):  # SQLite's words quote what it read
            self.close()
            raise StoreError(self._database.damaged()) from None
        except StoreError:
            self.close()
            raise

    @property
    def database(self) -> Database:
        """Where the log is."""
        return self._database

    def close(self) -> None:
        """Closes the store and lets go of its file."""
        self._database.engine.dispose()

    def reading(self) -> AbstractContextManager[Transaction]:
        """Opens a transaction that reads.

        Raises:
            StoreUnavailable: the store failed.
        """
        return self._transaction(writes=False)

    def writing(self) -> AbstractContextManager[Transaction]:
        """Opens a transaction that excludes every other writer, here and elsewhere.

        What it appended is durable when the block has ended, and nothing of it
        exists when the block has raised anything but `StoreUnavailable`.

        Raises:
            StoreUnavailable: the store failed; nothing was written, or `reply`
                shows that it was.
        """
        return self._transaction(writes=True)

    def revisions(self, after: int = 0, limit: int | None = None) -> list[StoredRevision]:
        """Reads the revisions after one, oldest first, and at most `limit` of them.

        Raises:
            BrokenChainError: one of them is not what was written.
            StoreUnavailable: the store failed.
        """
        with self.reading() as transaction:
            return transaction.revisions(after, limit)

    def replies(self, after_key: str, until: int, limit: int) -> list[StoredReply]:
        """Reads replies in order of their keys.

        Args:
            after_key: the last key that was read before, empty for none.
            until: the newest revision whose replies are read.
            limit: most replies to read.

        Raises:
            BrokenChainError: one of them is not what was written.
            StoreUnavailable: the store failed.
        """
        with self.reading() as transaction:
            return transaction.replies(after_key, until, limit)

    def verified(self) -> list[StoredRevision]:
        """Reads all revisions and recomputes their chain; looks at all replies, too.

        Raises:
            BrokenChainError: a row is not what it was when it was written.
            StoreUnavailable: the store failed.
        """
        stored = self.revisions()
        newest = verify(self._base, [revision.link for revision in stored])
        key = ""
        while page := self.replies(key, newest.revision, _REPLIES_PER_PAGE):
            key = page[-1].call.idempotency_key
        return stored

    def check_pages(self) -> None:
        """Looks at what is below the tables.

        Raises:
            BrokenChainError: it is damaged, so no revision is to be trusted.
            StoreUnavailable: the store failed.
        """
        with self.reading() as transaction:
            transaction.check_pages(self._database.damage)

    def reply(self, call: Call) -> bytes | None:
        """Returns the reply to a call that was answered before.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
            StoreUnavailable: the store failed.
        """
        with self.reading() as transaction:
            return transaction.reply(call)

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
        with self.writing() as transaction:
            return transaction.append(link, call, response)

    def extend(self, revisions: Sequence[StoredRevision], replies: Iterable[StoredReply]) -> int:
        """Writes revisions and replies of another log, all or nothing. Durable on return.

        A reply whose key is there already is left as it is here.

        Args:
            revisions: what follows the newest revision here, verified.
            replies: replies given at these revisions or earlier ones.

        Returns:
            How many replies were new.

        Raises:
            RevisionConflict: the revisions do not continue the newest one.
            StoreUnavailable: the store failed; nothing was written, or `revisions`
                shows that it was.
        """
        with self.writing() as transaction:
            return transaction.extend(revisions, replies)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Transaction]:
        database = self._database
        try:
            with ExitStack() as stack:
                with timed(self._observe, "begin"):
                    connection = stack.enter_context(self._connection())
                    connection.begin()
                    if writes:
                        database.lock(connection)
                transaction = Transaction(connection, self._base, self._observe)
                yield transaction
                with timed(self._observe, "commit"):
                    if transaction.has_grown:
                        database.announce(connection)
                    connection.commit()
        except StoreError as error:
            self._failed(error)
            raise StoreUnavailable from None
        except SQLAlchemyError as error:
            self._failed(error)
            raise StoreUnavailable(database.cause(error)) from None
        except UnicodeDecodeError:
            self._failed(StoreError(database.damaged()))
            raise StoreUnavailable("damaged") from None
        if self._failing:
            self._failing = False
            _log.info("store_available")

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self._database.engine.connect() as connection:
            try:
                yield connection
            except SQLAlchemyError:
                self._database.distrust(connection)  # before another thread has it
                raise

    def _failed(self, error: SQLAlchemyError | StoreError) -> None:
        """Logs the first failure of a row: it is looked at every second."""
        if not self._failing:
            self._failing = True
            reason = str(error) if isinstance(error, StoreError) else self._database.reason(error)
            _log.warning("store_unavailable", reason=reason)
