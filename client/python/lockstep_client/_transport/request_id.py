"""Calls that belong together: one id in the logs of the services, and one span above them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Self

from lockstep_client._transport.tracing import Operation

KEY: Final = "x-request-id"

_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """Returns the id of the request that is being made, or a new one."""
    return _current.get() or uuid.uuid4().hex


class OneRequest:
    """All calls of one request, until the `with` block ends."""

    def __init__(self, name: str) -> None:
        """Begins it.

        Args:
            name: what the client does, for traces.
        """
        self._id = current()
        self._operation = Operation(name)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Makes the calls inside of the block part of it. Nothing may be yielded out of it."""
        token = _current.set(self._id)
        try:
            with self._operation.calls():
                yield
        finally:
            _current.reset(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._operation.__exit__(kind, error, traceback)
