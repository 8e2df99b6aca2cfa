r"""Fingerprints: the identity of a vocabulary and of everything that led to it.

    fingerprint(0) = SHA-256("lockstep.vocabulary.base.v1\n" + canonical tokenizer.json)
    fingerprint(n) = SHA-256("lockstep.vocabulary.change.v1\n"
                             + fingerprint(n-1) + "\n" + canonical change(n))

Both are written in lower-case hexadecimal, also inside of the hash. The members
`padding` and `truncation` of `tokenizer.json` do not count: they say how the tokenizer
was last called, not what its vocabulary is.
"""

import hashlib
import json
from collections.abc import Iterable

from vocabulary import canonical
from vocabulary.revision import Change, Link, Reference

_BASE = b"lockstep.vocabulary.base.v1\n"
_CHANGE = b"lockstep.vocabulary.change.v1\n"
_NOT_IDENTITY = ("padding", "truncation")


class BrokenChainError(Exception):
    """A link does not follow from the one before it.

    Attributes:
        revision: the first revision that is wrong.
    """

    def __init__(self, revision: int, reason: str) -> None:
        super().__init__(f"Revision {revision} is not what it should be: {reason}.")
        self.revision = revision


def base_fingerprint(tokenizer_json: bytes) -> str:
    """Computes the fingerprint of revision 0.

    Args:
        tokenizer_json: the bytes of `tokenizer.json`, however it is formatted.

    Raises:
        ValueError: the bytes are not a JSON object.
    """
    members = json.loads(tokenizer_json)
    if not isinstance(members, dict):
        raise ValueError("tokenizer.json is not a JSON object.")
    identity = {key: value for key, value in members.items() if key not in _NOT_IDENTITY}
    return hashlib.sha256(_BASE + canonical.encode_json(identity)).hexdigest()


def fingerprint(parent: str, change: Change) -> str:
    """Computes the fingerprint of the state that `change` makes of `parent`."""
    encoded = canonical.encode_change(change)
    return hashlib.sha256(_CHANGE + parent.encode("ascii") + b"\n" + encoded).hexdigest()


def follow(parent: Reference, change: Change) -> Reference:
    """Returns the state after a change.

    Raises:
        BrokenChainError: the change's ids do not continue from `parent.size`, or do not exist.
    """
    ids = [token.id for token in change.tokens]
    size = parent.size + len(ids)
    revision = parent.revision + 1
    if ids != list(range(parent.size, size)):
        raise BrokenChainError(revision, f"its ids do not continue from {parent.size}")
    if any(not 0 <= special.token_id < size for special in change.special_tokens):
        raise BrokenChainError(revision, "it gives a role to an id that does not exist")
    if any(not 0 <= marked.id < parent.size for marked in change.marked_tokens):
        raise BrokenChainError(revision, "it marks an id that does not exist")
    return Reference(parent.tokenizer_id, revision, fingerprint(parent.fingerprint, change), size)


def verify(base: Reference, links: Iterable[Link]) -> Reference:
    """Recomputes a chain and returns its newest state.

    Args:
        base: a state that is trusted.
        links: what claims to follow it, oldest first.

    Raises:
        BrokenChainError: at the first link that does not follow.
    """
    newest = base
    for link in links:
        revision = newest.revision + 1
        if link.parent_fingerprint != newest.fingerprint:
            raise BrokenChainError(revision, "its parent is another state")
        newest = follow(newest, link.change)
        if link.vocabulary != newest:
            raise BrokenChainError(revision, "its fingerprint, number or size differs")
    return newest
