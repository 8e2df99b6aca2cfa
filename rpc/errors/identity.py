"""Failures that depend on who calls."""

from typing import Literal

from rpc.errors.service_error import ServiceError

CredentialsFault = Literal["missing", "unknown", "expired"]
"""What is wrong with the credentials of a call."""

_REMEDIES = {
    "missing": "This call needs credentials with the role {role}: send the metadata "
    "`authorization: Bearer TOKEN` (in our clients `token`), or connect with a client certificate. "
    "The operator gives roles with --principals, and with --allow-anonymous to everybody.",
    "unknown": "The metadata `authorization` is not `Bearer` and a token that this server knows: "
    "the operator names tokens in --principals, and who signs them with --jwt-keys.",
    "expired": "The credentials have expired; send a new token or certificate.",
}


class Unauthenticated(ServiceError):
    """It is not known who calls, and not everybody may."""

    def __init__(self, cause: CredentialsFault, role: str = "") -> None:
        """Refuses a call.

        Args:
            cause: what is wrong with its credentials.
            role: the role that the call needs, if that is known.
        """
        super().__init__(_REMEDIES[cause].format(role=role), cause=cause, role=role)


class PermissionDenied(ServiceError):
    """The caller is known, and may not do this."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"This call needs the role {role}, which its credentials do not have; the operator "
            "gives it to their principal in --principals, or in the claim of its web tokens.",
            role=role,
        )


class QuotaExceeded(ServiceError):
    """The caller uses as much as it may, whatever else is free."""

    def __init__(self, quota: str, limit: int, *, retry_delay_s: float | None) -> None:
        """Refuses a call.

        Args:
            quota: what is limited.
            limit: how much of it the caller may use.
            retry_delay_s: when a retry can succeed; None if the call alone exceeds the limit.
        """
        super().__init__(
            f"The quota of this caller is {limit} {quota.replace('_', ' ')}; the operator sets it "
            f"with --quota-{quota.replace('_', '-')}, or for one principal in --principals.",
            retry_delay_s=retry_delay_s,
            quota=quota,
            limit=limit,
        )
