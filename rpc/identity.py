"""Who calls, as far as the transport knows: the names in the client's certificate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import grpc

from rpc import handlers
from rpc.handlers import Context, Continuation, Handler

_caller: ContextVar[str] = ContextVar("caller", default="")


def caller() -> str:
    """Returns who made the call that this code runs for; empty when that is not known."""
    return _caller.get()


def principal(context: Context) -> str:
    """Returns the names in the client's certificate, one per line; empty without mutual TLS."""
    names = context.peer_identities() or ()
    return "\n".join(sorted(name.decode("utf-8", "replace") for name in names))


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Makes the caller of each call known to the code that runs for it."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return None if handler is None else handlers.enclose(handler, _identified)


@asynccontextmanager
async def _identified(context: Context) -> AsyncIterator[None]:
    # Every call runs in a task of its own, so there is nothing to set back.
    _caller.set(principal(context))
    yield
