"""The tables of the store, and how a store of an older version is migrated."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from tokenizer_service.store.records import StoreError
from vocabulary import BrokenChainError, Reference, canonical

DIGEST = "sha256"
"""Column with the hash of the others, so that no row is taken for another."""

_metadata = sa.MetaData()
# One row, written when the store is made. Its first column must stay what it is.
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
    sa.Column(DIGEST, sa.Text, nullable=False),
)
# The history is a line: a state has one successor, whichever replica writes it.
_one_successor = sa.Index("revision_parent", revision.c.parent_fingerprint, unique=True)
reply = sa.Table(
    "reply",
    _metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("request_sha256", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
    sa.Column(DIGEST, sa.Text, nullable=False),
)


def digest(columns: Mapping[str, Any]) -> str:
    """Hashes the other columns of a row."""
    members = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in columns.items()
    }
    return hashlib.sha256(canonical.encode_json(members)).hexdigest()


def check_digest(row: sa.Row[Any]) -> None:
    """Compares a row with its hash.

    Raises:
        BrokenChainError: it is not what was written.
    """
    columns = dict(row._mapping)
    if columns.pop(DIGEST) != digest(columns):
        raise BrokenChainError(row.revision, "what the store holds of it was damaged")


def _add_digests(connection: sa.Connection) -> None:
    for table, key in ((revision, revision.c.revision), (reply, reply.c.idempotency_key)):
        add = f"ALTER TABLE {table.name} ADD COLUMN {DIGEST} TEXT NOT NULL DEFAULT ''"
        connection.execute(sa.text(add))
        for row in connection.execute(sa.select(table)).all():
            columns = dict(row._mapping)
            del columns[DIGEST]
            where = key == columns[key.name]
            connection.execute(sa.update(table).where(where).values({DIGEST: digest(columns)}))


# What makes a store of this version one of the next. A change of a table adds a step
# here, and never edits one.
_STEPS: Mapping[int, Callable[[sa.Connection], None]] = {
    1: _one_successor.create,
    2: _add_digests,
}
VERSION = 1 + len(_STEPS)


def claim(connection: sa.Connection, base: Reference) -> None:
    """Makes the tables or brings them to this version, and checks whose they are.

    Args:
        connection: in a transaction that excludes every other writer.
        base: revision 0.

    Raises:
        BrokenChainError: some of the tables are gone.
        StoreError: the store is of a newer version or of another tokenizer, or the
            tables belong to another program.
    """
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names()) & set(_metadata.tables)
    if present and not any(_is_ours(inspector, name) for name in present):
        raise StoreError(
            f"The database has a table {min(present)} of another program. Give the store its own "
            "database, or its own schema."
        )
    if not present:
        _metadata.create_all(connection)
        connection.execute(sa.insert(store).values(schema_version=VERSION, **_owner(base)))
        return
    if present != set(_metadata.tables):
        raise BrokenChainError(1, "tables are missing")
    version = connection.execute(sa.select(store.c.schema_version)).scalar_one()
    if not isinstance(version, int) or version < 1:
        raise BrokenChainError(1, "the version of its schema is damaged")
    if version > VERSION:
        raise StoreError(
            f"The store has version {version} of the schema; this version of Lockstep knows "
            f"{VERSION}. Start the version that wrote it, or a newer one."
        )
    row = connection.execute(sa.select(store)).one()
    if any(row._mapping[name] != value for name, value in _owner(base).items()):
        raise StoreError(
            f"The store belongs to another tokenizer ({row.tokenizer_id}, base fingerprint "
            f"{row.base_fingerprint[:12]}, {row.base_size} ids). Name another store with "
            "--store, or serve that tokenizer."
        )
    for older in range(version, VERSION):
        _STEPS[older](connection)
        connection.execute(sa.update(store).values(schema_version=older + 1))


def _is_ours(inspector: sa.Inspector, name: str) -> bool:
    """Tells our table from another of its name: it has one of our columns."""
    present = {column["name"] for column in inspector.get_columns(name)}
    return bool(present & set(_metadata.tables[name].columns.keys()))


def _owner(base: Reference) -> dict[str, str | int]:
    return {
        "tokenizer_id": base.tokenizer_id,
        "base_fingerprint": base.fingerprint,
        "base_size": base.size,
    }
