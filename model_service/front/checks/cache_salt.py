"""Whose KV cache a prompt may reuse, and who may reuse its own."""

from rpc import identity
from wire.violations import Violations

MAX_SALT_LENGTH = 256


def read_salt(salt: str, violations: Violations) -> str:
    """Checks a request's salt and makes it one that no other caller can have.

    How long a prompt takes shows whether its beginning was known. Callers that
    can be told apart therefore never share, whatever salts they choose.
    """
    if len(salt) > MAX_SALT_LENGTH:
        violations.add("cache_salt", f"must have at most {MAX_SALT_LENGTH} characters")
    caller = identity.caller()
    return f"{len(caller)}:{caller}{salt}"
