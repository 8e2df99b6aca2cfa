"""The id under which the services' logs have a request, the same for calls that belong together."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

KEY: Final = "x-request-id"

_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """Returns the id of the request that is being made, or a new one."""
    return _current.get() or uuid.uuid4().hex


@contextmanager
def one_request() -> Iterator[None]:
    """Gives all calls inside of the block one id. Nothing may be yielded out of it."""
    token = _current.set(current())
    try:
        yield
    finally:
        _current.reset(token)
