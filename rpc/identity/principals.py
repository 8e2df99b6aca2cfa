"""The file of an operator that says who callers are: by hashes of their tokens, or certificates."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from rpc.identity.principal import Principal, QuotaName
from rpc.identity.roles import Role

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@/-]{1,128}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: frozenset[Role]
    token_sha256: frozenset[_Sha256] = frozenset()
    certificates: frozenset[str] = frozenset()
    expires: AwareDatetime | None = None
    quota: dict[QuotaName, NonNegativeInt] = {}


_ENTRIES: TypeAdapter[dict[str, _Entry]] = TypeAdapter(dict[_Name, _Entry])


@dataclass(frozen=True, slots=True)
class Principals:
    """Whom an operator knows."""

    _by_hash: Mapping[str, Principal]
    _by_certificate: Mapping[str, Principal]

    @classmethod
    def read(cls, data: bytes) -> "Principals":
        """Reads the TOML of a file: a table for each principal.

        Raises:
            ValueError: it says nothing, or something that makes no sense. The text names the place
                and never a hash.
        """
        try:
            entries = _ENTRIES.validate_python(tomllib.loads(data.decode()))
        except ValidationError as error:
            raise ValueError("; ".join(map(_describe, error.errors()))) from None
        by_hash: dict[str, Principal] = {}
        by_certificate: dict[str, Principal] = {}
        for name, entry in entries.items():
            expires_at = entry.expires.timestamp() if entry.expires else math.inf
            principal = Principal(name, entry.roles, entry.quota, expires_at)
            for kind, known, keys in (
                ("token_sha256", by_hash, entry.token_sha256),
                ("certificates", by_certificate, entry.certificates),
            ):
                if taken := [known[key].name for key in keys if key in known]:
                    raise ValueError(f"{name}.{kind}: {taken[0]} has it, too")
                known.update(dict.fromkeys(keys, principal))
        return cls(by_hash, by_certificate)

    def of_token(self, token: str) -> Principal | None:
        """Returns whose token it is, in a time that does not tell how much of a hash was right."""
        given = sha256(token.encode()).hexdigest()
        found = None
        for digest, principal in self._by_hash.items():
            if compare_digest(digest, given):
                found = principal
        return found

    def of_certificate(self, names: Iterable[str]) -> Principal | None:
        """Returns whose certificate has one of these names."""
        found = (self._by_certificate.get(name) for name in names)
        return next((principal for principal in found if principal is not None), None)


def _describe(problem: ErrorDetails) -> str:
    """Names the place, without the value: a token may stand where its hash should."""
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
