"""A line of the log for every call, and for a sample of those that are refused in masses.

What a caller sends never gets here: no text, no tokens, no metadata but the ids of
request and trace, which are checked and short.
"""

import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from rpc import handlers
from rpc.handlers import Context, Continuation, Handler, Outcome
from rpc.identity import caller

REQUEST_ID_KEY = "x-request-id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_MAX_METHOD_CHARS = 128
_MAX_PRINCIPAL_CHARS = 256

# Of calls refused for one reason, this many have a line each second.
_REFUSALS_PER_S = 10

_given_id: ContextVar[str] = ContextVar("given_id", default="")
_fields: ContextVar[dict[str, Any] | None] = ContextVar("fields", default=None)


def request_id() -> str:
    """Returns the id of the call this code runs for, and an empty text outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def given_request_id() -> str:
    """Returns the id of the call this code runs for if its caller gave it one, or an empty text."""
    return _given_id.get()


def note(**fields: str) -> None:
    """Adds fields to the line of the call that this code runs for, if it runs for one."""
    if (noted := _fields.get()) is not None:
        noted.update(fields)


def noted() -> dict[str, Any]:
    """Returns what was noted and counted for the call that this code runs for, so far."""
    return dict(_fields.get() or {})


def count(**numbers: int) -> None:
    """Adds to numbers in the line of the call that this code runs for, if it runs for one."""
    if (noted := _fields.get()) is not None:
        for name, number in numbers.items():
            noted[name] = noted.get(name, 0) + number


class AccessLogInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call an id, which every line written for it holds, and a line of its own."""

    def __init__(self) -> None:
        self._log = structlog.stdlib.get_logger("rpc.access")
        self._refusals = Sample(_REFUSALS_PER_S)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        metadata = handler_call_details.invocation_metadata
        given_id = _given_id_in(metadata)
        _given_id.set(given_id)  # each call has a task of its own
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method[:_MAX_METHOD_CHARS]
        request_id = given_id or uuid.uuid4().hex

        @asynccontextmanager
        async def logged(context: Context) -> AsyncIterator[None]:
            start = time.perf_counter()
            fields: dict[str, Any] = {}
            _fields.set(fields)
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                error: BaseException | None = None
                try:
                    yield
                except BaseException as caught:
                    error = caught
                    raise
                finally:
                    if principal := caller():
                        fields["principal"] = principal[:_MAX_PRINCIPAL_CHARS]
                    ended = handlers.outcome(context, error)
                    fields["duration_ms"] = round((time.perf_counter() - start) * 1000, 3)
                    self._write(method, ended, fields)

        return handlers.enclose(handler, logged)

    def _write(self, method: str, ended: Outcome, fields: dict[str, Any]) -> None:
        if ended.reason:
            fields["reason"] = ended.reason
            if ended.code is not grpc.StatusCode.INTERNAL:
                num_left_out = self._refusals.take(ended.reason)
                if num_left_out is None:
                    return
                if num_left_out:
                    fields["left_out"] = num_left_out
        self._log.info("call", method=method, code=ended.code.name, **fields)


class Sample:
    """Takes the first of each kind in every second, and counts the others."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._taken: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def take(self, kind: str) -> int | None:
        """Returns how many of a kind were left out since the last one taken; None to leave out."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._taken.clear()
        if self._taken[kind] >= self._per_second:
            self._left_out[kind] += 1
            return None
        self._taken[kind] += 1
        return self._left_out.pop(kind, 0)


def _given_id_in(metadata: Iterable[tuple[str, Any]]) -> str:
    """Returns the id that a caller gave its call, or an empty text where it is not harmless."""
    given = dict(metadata).get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else ""
