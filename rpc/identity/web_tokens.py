"""JSON web tokens of an identity provider, checked with its public keys."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from rpc import errors
from rpc.identity.principal import Principal
from rpc.identity.roles import Role
from rpc.identity.watched_file import WatchedFile

PREFIX = "jwt:"
"""Stands before the subject in a principal's name; no name in a file of principals has a colon."""

_CLOCKS_DIFFER_S = 10
# With a secret that both sides have, whoever checks a token could also make one.
_PUBLIC_KEY_TYPES = ("RSA", "EC", "OKP")

Keys = Mapping[str | None, jwt.PyJWK]
"""Public keys by their ids."""


class TokenIssuer:
    """Says whom the tokens of one provider name.

    Attributes:
        keys: its public keys.
    """

    def __init__(self, keys: Path, *, issuer: str, audience: str, roles_claim: str) -> None:
        """Reads the keys.

        Args:
            keys: a JSON Web Key Set.
            issuer: what `iss` must be.
            audience: what `aud` must be, or hold.
            roles_claim: the claim with the roles, a list or a text with spaces between.

        Raises:
            OSError: the file cannot be read, or holds no public key.
        """
        self.keys: WatchedFile[Keys] = WatchedFile(keys, _read_keys)
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim

    def principal(self, token: str) -> Principal:
        """Returns whom a token names.

        Raises:
            Unauthenticated: it is not a token of the provider for this audience, or is expired.
        """
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_CLOCKS_DIFFER_S,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise errors.Unauthenticated("expired") from None
        except (jwt.PyJWTError, KeyError):
            raise errors.Unauthenticated("unknown") from None
        return Principal(
            f"{PREFIX}{claims['sub']}",
            self._roles(claims),
            expires_at=float(claims["exp"]) + _CLOCKS_DIFFER_S,
        )

    def _key(self, key_id: str | None) -> jwt.PyJWK:
        """Returns the key of an id, or the only one where a token names none."""
        keys = self.keys.value()
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys[key_id]

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        """Reads the roles; a provider may have others, or a claim, that mean nothing here."""
        given = claims.get(self._roles_claim)
        names = given.split() if isinstance(given, str) else given
        if not isinstance(names, list):
            return frozenset()
        return frozenset(role for role in Role if role.value in names)


def _read_keys(data: bytes) -> Keys:
    """Reads a JSON Web Key Set.

    Raises:
        ValueError: it is none, or holds no public key for signatures.
    """
    try:
        keys = jwt.PyJWKSet.from_dict(json.loads(data)).keys
    except (jwt.PyJWTError, AttributeError, TypeError) as error:
        raise ValueError(f"is no JSON Web Key Set: {error}") from None
    public = [
        key
        for key in keys
        if key.key_type in _PUBLIC_KEY_TYPES and key.public_key_use in {None, "sig"}
    ]
    if not public:
        raise ValueError("holds no public key for signatures")
    return {key.key_id: key for key in public}
