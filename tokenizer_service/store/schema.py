"""The tables of the store, and how a store of an older version becomes one of this."""

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from tokenizer_service.store.records import StoreError
from vocabulary import Reference

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
)
# The history is a line: whoever writes, a state has one successor.
_one_successor = sa.Index("revision_parent", revision.c.parent_fingerprint, unique=True)
reply = sa.Table(
    "reply",
    _metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("request_sha256", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("create_time_us", sa.BigInteger, nullable=False),
)

# What makes a store of this version one of the next. A change of a table adds a step
# here, and never edits one.
_STEPS: Mapping[int, Callable[[sa.Connection], None]] = {1: _one_successor.create}
VERSION = 1 + len(_STEPS)


def claim(connection: sa.Connection, base: Reference) -> None:
    """Makes the tables or brings them to this version, and checks whose they are.

    Args:
        connection: in a transaction beside which nobody writes.
        base: revision 0.

    Raises:
        StoreError: the store is of a newer version, or of another tokenizer.
    """
    if not sa.inspect(connection).has_table(store.name):
        _metadata.create_all(connection)
        connection.execute(sa.insert(store).values(schema_version=VERSION, **_owner(base)))
        return
    version = connection.execute(sa.select(store.c.schema_version)).scalar_one()
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


def _owner(base: Reference) -> dict[str, str | int]:
    return {
        "tokenizer_id": base.tokenizer_id,
        "base_fingerprint": base.fingerprint,
        "base_size": base.size,
    }
