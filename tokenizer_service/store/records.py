"""What goes into the log and comes out of it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from vocabulary import Link


class StoreError(Exception):
    """The store cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """One revision and when it was made durable."""

    link: Link
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Call:
    """A changing call as the caller identifies it.

    Attributes:
        idempotency_key: chosen by the caller.
        request_sha256: of the request, so that a key is not used for two.
    """

    idempotency_key: str
    request_sha256: str

    @classmethod
    def of(cls, idempotency_key: str, request: bytes) -> "Call":
        """Identifies a call by its key and the bytes of its request."""
        return cls(idempotency_key, hashlib.sha256(request).hexdigest())


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The reply to a call, kept for its repetitions.

    Attributes:
        call: the call that was answered.
        revision: the newest one when it was answered.
        response: the bytes of the reply.
        create_time: when it was made durable.
    """

    call: Call
    revision: int
    response: bytes
    create_time: datetime
