"""Code that runs as if a caller had made the call."""

import json
from contextlib import contextmanager
from hashlib import sha256

from rpc.identity import Principal, Role
from rpc.identity.principal import _current


@contextmanager
def called_by(name, *roles, **fields):
    """Runs the block for a caller; it has every role unless some are given."""
    token = _current.set(Principal(name, frozenset(roles or Role), **fields))
    try:
        yield
    finally:
        _current.reset(token)


ROLES = [role.value for role in Role]


def write_principals(path, entries):
    """Writes a file of principals, each known by its own name as a token.

    Args:
        path: the file.
        entries: fields by name, `roles` among them.
    """
    lines = []
    for name, fields in entries.items():
        token_sha256 = [sha256(name.encode()).hexdigest()]
        lines.append(f'["{name}"]')
        for field, value in {"token_sha256": token_sha256, **fields}.items():
            written = value if isinstance(value, str) else json.dumps(value).replace('":', '" =')
            lines.append(f"{field} = {written}")
    path.write_text("\n".join(lines))
    return path


def bearer(token):
    """Returns the metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)
