"""JSON lines on stderr, one per event, and one per call.

What a caller sends never gets here: no text, no tokens, no metadata but the
request id, which is checked and short.
"""

import logging
import re
import sys
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

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def configure(level: str) -> None:
    """Sends structlog and the standard library's loggers to stderr as JSON lines.

    Args:
        level: the lowest level written, such as `info`.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),
        ],
    )
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(formatter)
    logging.basicConfig(level=threshold, handlers=[stderr], force=True)


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
