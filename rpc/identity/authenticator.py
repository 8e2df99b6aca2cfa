"""From what a call shows to who makes it: a bearer token, a certificate, or nothing."""

import secrets
from collections.abc import Sequence
from hashlib import blake2b

from rpc import errors
from rpc.identity.principal import Principal
from rpc.identity.principals import Principals
from rpc.identity.roles import Role
from rpc.identity.watched_file import WatchedFile
from rpc.identity.web_tokens import TokenIssuer

CERTIFIED_ROLES = frozenset({Role.INFERENCE, Role.SESSION, Role.INFO})
"""What a caller with an accepted certificate may do where no file says who callers are."""

_SCHEME = "bearer"
# Tokens whose principals are remembered: a signature takes 100 µs to check.
_MAX_KNOWN = 4096


class Authenticator:
    """Knows the callers of one server. Used by its event loop and by the threads of `/metrics`.

    Attributes:
        anonymous: who shows nothing.
    """

    def __init__(
        self,
        principals: WatchedFile[Principals] | None,
        issuer: TokenIssuer | None,
        anonymous: frozenset[Role],
    ) -> None:
        """Takes what identifies callers.

        Args:
            principals: who callers are.
            issuer: whose web tokens are taken.
            anonymous: roles of callers that show no credentials.
        """
        self._principals = principals
        self._issuer = issuer
        self.anonymous = Principal("", anonymous)
        self._known: dict[bytes, Principal] = {}
        self._sources: tuple[object, object] = (None, None)  # that they are known by
        self._secret = secrets.token_bytes(32)

    def of_token(self, authorization: Sequence[str]) -> Principal | None:
        """Returns whom a bearer token names.

        Args:
            authorization: values of the metadata `authorization`.

        Returns:
            The principal; None where there is no token, or none is taken here.

        Raises:
            Unauthenticated: it is unknown or expired, whatever the call could do without it.
        """
        if not authorization or (self._principals is None and self._issuer is None):
            return None
        return _current(self._of_token(authorization))

    def of_certificate(self, names: Sequence[str]) -> Principal:
        """Returns whom a certificate names that the transport has accepted.

        Args:
            names: those in the certificate.

        Raises:
            Unauthenticated: what the operator gave to it has expired.
        """
        if self._principals is None:
            return Principal("\n".join(sorted(names)), CERTIFIED_ROLES)
        found = self._principals.value().of_certificate(names)
        return _current(found or self.anonymous)

    def forget(self) -> None:
        """Forgets whom tokens name; they are found out again."""
        self._known.clear()

    def _of_token(self, authorization: Sequence[str]) -> Principal:
        scheme, _, token = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != _SCHEME:
            raise errors.Unauthenticated("unknown")
        self._forget_the_past()
        # With a key that nobody knows, the time of a look-up tells nothing about tokens.
        digest = blake2b(token.encode(), key=self._secret, digest_size=32).digest()
        found = self._known.get(digest)
        if found is None:
            found = self._identify(token)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = found
        return found

    def _identify(self, token: str) -> Principal:
        if self._principals is not None:
            found = self._principals.value().of_token(token)
            if found is not None:
                return found
        if self._issuer is not None:
            return self._issuer.principal(token)
        raise errors.Unauthenticated("unknown")

    def _forget_the_past(self) -> None:
        principals = None if self._principals is None else self._principals.value()
        keys = None if self._issuer is None else self._issuer.keys.value()
        if principals is not self._sources[0] or keys is not self._sources[1]:
            self.forget()
            self._sources = principals, keys


def _current(found: Principal) -> Principal:
    if found.expired:
        raise errors.Unauthenticated("expired")
    return found
