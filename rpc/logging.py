"""A line of the log for every call.

What a caller sends never gets here: no text, no tokens, no metadata but the
request id, which is checked and short.
"""

import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from rpc import handlers
from rpc.handlers import Context, Continuation, Handler

REQUEST_ID_KEY = "x-request-id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_MAX_METHOD_CHARS = 128


def request_id() -> str:
    """Returns the id of the call this code runs for, and an empty text outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


class AccessLogInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call an id, which every line written for it holds, and a line of its own."""

    def __init__(self) -> None:
        self._log = structlog.stdlib.get_logger("rpc.access")

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method[:_MAX_METHOD_CHARS]
        identifier = _identify(handler_call_details.invocation_metadata)

        @asynccontextmanager
        async def logged(context: Context) -> AsyncIterator[None]:
            start = time.perf_counter()
            with structlog.contextvars.bound_contextvars(request_id=identifier):
                error: BaseException | None = None
                try:
                    yield
                except BaseException as caught:
                    error = caught
                    raise
                finally:
                    ended = handlers.outcome(context, error)
                    self._log.info(
                        "call",
                        method=method,
                        code=ended.code.name,
                        **({"reason": ended.reason} if ended.reason else {}),
                        duration_ms=round((time.perf_counter() - start) * 1000, 3),
                    )

        return handlers.enclose(handler, logged)


def _identify(metadata: Iterable[tuple[str, Any]]) -> str:
    """Returns the caller's request id when it is harmless, and otherwise a new one."""
    given = next((value for key, value in metadata if key == REQUEST_ID_KEY), None)
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex
