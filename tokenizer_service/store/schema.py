"""The tables of the store, and whose they are."""

import sqlalchemy as sa

from tokenizer_service.store.records import StoreError
from vocabulary import Reference

# Raised when the meaning of a table changes.
VERSION = 1

_metadata = sa.MetaData()
store = sa.Table(
    "store",
    _metadata,
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("tokenizer_id", sa.Text, nullable=False),
    sa.Column("base_fingerprint", sa.Text, nullable=False),
    sa.Column("base_size", sa.Integer, nullable=False),
)
revision = sa.Table(
    "revision",
    _metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent_fingerprint", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("change", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
)
reply = sa.Table(
    "reply",
    _metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("request_sha256", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
)


def claim(connection: sa.Connection, base: Reference) -> None:
    """Makes the tables, or checks that they are of this tokenizer.

    Args:
        connection: in a transaction that nobody else can write beside.
        base: revision 0.

    Raises:
        StoreError: the store belongs to another tokenizer.
    """
    expected = {
        "schema_version": VERSION,
        "tokenizer_id": base.tokenizer_id,
        "base_fingerprint": base.fingerprint,
        "base_size": base.size,
    }
    _metadata.create_all(connection)
    row = connection.execute(sa.select(store)).one_or_none()
    if row is None:
        connection.execute(sa.insert(store).values(**expected))
    elif dict(row._mapping) != expected:
        raise StoreError(
            f"The store belongs to another tokenizer ({row.tokenizer_id}, base fingerprint "
            f"{row.base_fingerprint[:12]}, {row.base_size} ids). Name another file with "
            "--store, or serve that tokenizer."
        )
