"""Lets a call through if its caller may make it, and tells the code behind it who that is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import grpc

from rpc import errors, handlers
from rpc.handlers import Context, Continuation, Handler
from rpc.identity.authenticator import Authenticator
from rpc.identity.principal import Principal, set_current
from rpc.identity.roles import POLICY, Role

AUTHORIZATION_KEY = "authorization"


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Refuses strangers before anything of their request is read.

    Every call runs in a task of its own, so what is set here holds for the whole call.

    Args:
        authenticator: knows callers.
        by_certificate: whether connections show certificates. Only the call itself knows them.
    """

    def __init__(self, authenticator: Authenticator, *, by_certificate: bool) -> None:
        self._authenticator = authenticator
        self._by_certificate = by_certificate

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        role = POLICY.get(handler_call_details.method)
        if role is None:
            unknown = await continuation(handler_call_details) is None
            return None if unknown else _refused(errors.NotImplemented_("This method"))
        metadata = handler_call_details.invocation_metadata
        authorization = [str(value) for key, value in metadata if key == AUTHORIZATION_KEY]
        try:
            found = self._authenticator.of_token(authorization)
            if found is None and not self._by_certificate:
                found = self._authenticator.anonymous
            if found is not None:
                _let_in(found, role)
        except errors.ServiceError as error:
            return _refused(error)
        handler = await continuation(handler_call_details)
        if handler is None or found is not None:
            return handler
        return handlers.enclose(handler, partial(self._certified, role))

    @asynccontextmanager
    async def _certified(self, role: Role, context: Context) -> AsyncIterator[None]:
        names = [name.decode("utf-8", "replace") for name in context.peer_identities() or ()]
        _let_in(self._authenticator.of_certificate(names), role)
        yield


def _let_in(found: Principal, role: Role) -> None:
    set_current(found)  # first, so that the line of a refused call names it
    found.require(role)


def _refused(error: errors.ServiceError) -> Handler:
    return handlers.refuse(lambda context: nullcontext(), error)
