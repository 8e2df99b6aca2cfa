"""What went wrong, for one row or for a whole call."""

from typing import Any

import msgspec


class Failure(msgspec.Struct, frozen=True):
    """An error of `rpc.errors`, by class name and keyword arguments."""

    error: str
    arguments: dict[str, Any] = {}


class Rejected(msgspec.Struct, tag="rejected"):
    """The whole call failed; nothing follows."""

    request_id: int
    failure: Failure
