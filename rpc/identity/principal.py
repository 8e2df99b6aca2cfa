"""Who makes a call, and what it may do."""

import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from rpc import errors
from rpc.identity.roles import ALL_ROLES, Role

QuotaName = Literal[
    "sequences", "sessions", "kv_percent", "tokens_per_minute", "added_tokens_per_hour"
]
"""What a quota bounds. `--quota-*` sets it for every caller, and the file of principals for one."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who makes calls.

    Attributes:
        name: the same in every call; empty for callers without credentials, who are one.
        roles: what it may do.
        quotas: those that differ from the server's.
        expires_at: when its credentials expire, in Unix time.
    """

    name: str
    roles: frozenset[Role]
    quotas: Mapping[QuotaName, int] = field(default_factory=dict)
    expires_at: float = math.inf

    @property
    def expired(self) -> bool:
        """Whether its credentials are of the past."""
        return self.expires_at <= time.time()

    def require(self, role: Role) -> None:
        """Checks that it has a role.

        Raises:
            Unauthenticated: it has not, and showed no credentials.
            PermissionDenied: it has not.
        """
        if role in self.roles:
            return
        if self.name:
            raise errors.PermissionDenied(role)
        raise errors.Unauthenticated("missing", role)


_OPERATOR = Principal("", ALL_ROLES)
"""Whose the code is that runs for no call, as at start."""

_current: ContextVar[Principal] = ContextVar("principal", default=_OPERATOR)


def current() -> Principal:
    """Returns who made the call that this code runs for."""
    return _current.get()


def set_current(principal: Principal) -> None:
    """Says who made the call that this task runs for."""
    _current.set(principal)


def caller() -> str:
    """Returns the name of who made the call that this code runs for; empty when it has none."""
    return _current.get().name


def require(role: Role) -> None:
    """Checks that who made the call that this code runs for has a role.

    Raises:
        Unauthenticated: it has not, and showed no credentials.
        PermissionDenied: it has not.
    """
    _current.get().require(role)


def quota(name: QuotaName, default: int) -> int:
    """Returns the quota of who made the call that this code runs for; 0 means no limit.

    Args:
        name: what it bounds.
        default: that of every caller without one of its own.
    """
    return _current.get().quotas.get(name, default)
