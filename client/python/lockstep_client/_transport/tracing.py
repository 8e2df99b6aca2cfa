"""Spans of a program that traces with OpenTelemetry: one for each attempt of a call, and above.

Such a program has imported OpenTelemetry, and set it up. For another nothing is imported, and
nothing is sent.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lockstep_client._transport.endpoint import Endpoint
from lockstep_client.exceptions import LockstepError

Metadata = tuple[tuple[str, str], ...]

_API: Final = "opentelemetry.trace"
_NAME: Final = "lockstep_client"


@contextmanager
def attempt(path: str, endpoint: Endpoint) -> Iterator[Metadata]:
    """Makes the block an attempt of a call, and says what is sent with it.

    Args:
        path: of the method, `/package.Service/Method`.
        endpoint: who is called.
    """
    api: Any = sys.modules.get(_API)
    if api is None:
        yield ()
        return
    from opentelemetry import propagate

    method = path.removeprefix("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": method, **_server(endpoint.address)}
    tracer = api.get_tracer(_NAME)
    span = tracer.start_span(method, kind=api.SpanKind.CLIENT, attributes=attributes)
    headers: dict[str, str] = {}
    propagate.inject(headers, api.set_span_in_context(span))
    code = "OK"
    try:
        yield tuple(headers.items())
    except LockstepError as error:
        code = error.code.name
        _fail(api, span, error)
        raise
    except BaseException:  # whoever reads the answer has left
        code = "CANCELLED"
        raise
    finally:
        span.set_attribute("rpc.response.status_code", code)
        span.end()


class Operation:
    """A span above all calls that an operation makes, until the `with` block ends."""

    def __init__(self, name: str) -> None:
        """Begins it.

        Args:
            name: what the client does.
        """
        self._api: Any = sys.modules.get(_API)
        self._span: Any = self._api and self._api.get_tracer(_NAME).start_span(name)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Puts the calls made inside of the block below it. Nothing may be yielded out of it."""
        if self._api is None:
            yield
            return
        with self._api.use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield

    def __enter__(self) -> "Operation":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._api is None:
            return
        if isinstance(error, Exception):
            _fail(self._api, self._span, error)
        self._span.end()


def _fail(api: Any, span: Any, error: Exception) -> None:
    kind = getattr(error, "reason", "") or type(error).__name__
    span.set_attribute("error.type", kind)
    span.set_status(api.StatusCode.ERROR, kind)


def _server(address: str) -> dict[str, str | int]:
    """Returns the attributes that name who is called."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return {"server.address": address}
    return {"server.address": host.rpartition("/")[2], "server.port": int(port)}
