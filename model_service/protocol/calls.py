"""What every call to the engine has: a number, its answers, and what goes wrong with it."""

from typing import Any, Generic, TypeVar

import msgspec


class Failure(msgspec.Struct, frozen=True):
    """An error of `rpc.errors`, by class name and keyword arguments."""

    error: str
    arguments: dict[str, Any] = {}


class Response(msgspec.Struct):
    """What the engine says about a call."""

    request_id: int
    """The call that it is about."""


class Rejected(Response, tag="rejected"):
    """The whole call failed; nothing follows."""

    failure: Failure


R = TypeVar("R", bound=Response)


class Request(msgspec.Struct, Generic[R], kw_only=True):
    """A command that begins a call. Answered by one `R` or by several, or by `Rejected`."""

    request_id: int = 0
    """Names the call. The front counts: it is filled in when the request is sent."""

    principal: str = ""
    """Who makes the call. Places are shared between principals first. Filled in like the number."""

    @property
    def num_rows(self) -> int:
        """Rows of a step that the call takes; 0 where no model takes part."""
        return 0

    @property
    def num_sequences(self) -> int:
        """Rows that are answered each for itself."""
        return self.num_rows
