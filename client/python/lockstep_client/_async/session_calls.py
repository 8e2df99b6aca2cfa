"""How calls use a session, for asyncio: one after the other, where it is, and if asked for anew."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client._async.session_link import AsyncSessionLink, AsyncSessionMethods
from lockstep_client._calls.session_state import (
    FAREWELL_S,
    LOSSES,
    REOPENING_PAUSES_S,
    SessionState,
    Turn,
)
from lockstep_client._transport.async_connection import Request, Response
from lockstep_client._transport.endpoint import DEFAULT_TIMEOUT_S, USE_DEFAULT, Timeout
from lockstep_client._transport.patience import Patience
from lockstep_client._transport.route import Route
from lockstep_client.exceptions import ConnectionFailed, LockstepError, SessionBusy

if TYPE_CHECKING:  # what has type parameters in the stub files only
    from grpc.aio import UnaryUnaryMultiCallable

    Method = Callable[[AsyncSessionMethods], UnaryUnaryMultiCallable[Request, Response]]

Result = TypeVar("Result")


class AsyncSessionCalls(SessionState):
    """A session, and where it is reached."""

    def __init__(
        self,
        request: pb.OpenSessionRequest,
        response: pb.OpenSessionResponse,
        link: AsyncSessionLink,
        *,
        reopens: bool = False,
    ) -> None:
        super().__init__(request, response)
        self._link = link
        self._reopens = reopens
        link.route.session_id = self.session_id

    async def reopen(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Opens the session again from the tokens that this client has, for one that is lost.

        Steps after it return what they would have returned: rows keep their prompts, seeds,
        configuration and revision, and what is known of them. The name is another, and the
        KV cache is computed again. A session that is not lost is closed where it can be
        reached, and left to expire elsewhere. While no service answers, it is waited for.

        Args:
            timeout: in seconds.
        """
        self._check_open()
        timeout_s = self._link.home.endpoint.unary_timeout_s(timeout)
        patience = Patience(DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)
        while True:
            try:
                await self._open_again(patience.remaining_s)
                return
            except LockstepError as error:  # at worst a session is left to expire
                await asyncio.sleep(patience.pause_s(error))

    async def _open_again(self, timeout_s: float) -> None:
        """Opens the session where the client's connection leads, and closes the one there was."""
        left, left_id = self._link, self.session_id
        link = AsyncSessionLink(left.home, Route())
        response = await link.home.unary(
            link.methods.sessions.OpenSession,
            self._reopen_request(),
            timeout_s,
            route=link.route,
        )
        self._apply_reopening(response)
        link.route.session_id = self.session_id
        self._link = link
        request = pb.CloseSessionRequest(session_id=left_id)

        async def close() -> pb.CloseSessionResponse:
            return await left.connection.unary(
                left.methods.sessions.CloseSession, request, FAREWELL_S, route=left.route
            )

        with suppress(LockstepError):  # lost, or out of reach
            await left.reach(close)

    async def _leave_draining(self, turn: Turn) -> None:
        """Opens the session elsewhere before its replica has shut down, if somebody takes it now.

        Otherwise the replica goes on with it.
        """
        for _ in range(2):  # the first may be refused by the same replica: see `Dialer`
            if self._drain_s is None:
                return
            timeout_s = self._drain_s / 2
            if turn.timeout_s is not None:
                timeout_s = min(timeout_s, turn.timeout_s)
            with suppress(LockstepError):
                await self._open_again(timeout_s)

    async def _call(
        self,
        method: "Method[Request, Response]",
        request: Request,
        timeout: Timeout,
        *,
        settles: bool = True,
    ) -> Response:
        """Calls a method that uses the session, once no call that was left does.

        One that `settles` nothing may be called while another call uses the session.
        """
        turn = Turn(self._link.home.endpoint.unary_timeout_s(timeout))

        async def call() -> Response:
            self._check_open()
            if not settles:
                return await self._send(method, request, turn)
            await self._settle(turn)
            with self._leaving():
                return await self._send(method, request, turn)

        return await self._lasting(call, turn)

    async def _lasting(self, use: Callable[[], Awaitable[Result]], turn: Turn) -> Result:
        """Uses the session, which is opened again where it is lost, if that was asked for."""
        if self._reopens:
            await self._leave_draining(turn)
        for pause_s in REOPENING_PAUSES_S if self._reopens else ():
            try:
                return await self._link.reach(use)
            except LOSSES as error:
                await self.reopen(timeout=turn.timeout_s)
                if isinstance(error, ConnectionFailed):
                    await asyncio.sleep(pause_s)  # the connection is made anew meanwhile
        return await self._link.reach(use)

    async def _settle(self, turn: Turn) -> None:
        """Waits until a call that was left is over, and undoes it if it was a generation."""
        self._check_open()
        if not self._unsettled:
            return
        if self._overrun:
            await self._once_free(
                lambda methods: methods.sessions.Truncate, self._undo_request(), turn
            )
        else:
            request = pb.GetSessionRequest(session_id=self.session_id)
            await self._once_free(lambda methods: methods.sessions.GetSession, request, turn)
        self._settled()

    async def _once_free(
        self, method: "Method[Request, Response]", request: Request, turn: Turn
    ) -> Response:
        while True:
            try:
                return await self._send(method, request, turn)
            except SessionBusy as error:
                await asyncio.sleep(turn.pause_s(error))

    async def _send(
        self, method: "Method[Request, Response]", request: Request, turn: Turn
    ) -> Response:
        link = self._link
        # Another one since the request was built, if the session was reopened.
        request.session_id = self.session_id  # type: ignore[attr-defined]
        return await link.connection.unary(
            method(link.methods), request, turn.timeout_s, route=link.route
        )
