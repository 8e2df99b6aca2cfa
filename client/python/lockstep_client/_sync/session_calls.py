# Generated from _async/session_calls.py by `make client`.
"""How calls use a session, blocking: one after the other, where it is, and if asked for anew."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client._calls.session_state import (
    FAREWELL_S,
    LOSSES,
    REOPENING_PAUSES_S,
    SessionState,
    Turn,
)
from lockstep_client._sync.session_link import SessionLink, SessionMethods
from lockstep_client._transport.endpoint import DEFAULT_TIMEOUT_S, USE_DEFAULT, Timeout
from lockstep_client._transport.patience import Patience
from lockstep_client._transport.route import Route
from lockstep_client._transport.sync_connection import Request, Response
from lockstep_client.exceptions import ConnectionFailed, LockstepError, SessionBusy

if TYPE_CHECKING:  # what has type parameters in the stub files only
    from grpc import UnaryUnaryMultiCallable

    Method = Callable[[SessionMethods], UnaryUnaryMultiCallable[Request, Response]]

Result = TypeVar("Result")


class SessionCalls(SessionState):
    """A session, and where it is reached."""

    def __init__(
        self,
        request: pb.OpenSessionRequest,
        response: pb.OpenSessionResponse,
        link: SessionLink,
        *,
        reopens: bool = False,
    ) -> None:
        super().__init__(request, response)
        self._link = link
        self._reopens = reopens
        link.route.session_id = self.session_id

    def reopen(self, *, timeout: Timeout = USE_DEFAULT) -> None:
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
                self._open_again(patience.remaining_s)
                return
            except LockstepError as error:  # at worst a session is left to expire
                time.sleep(patience.pause_s(error))

    def _open_again(self, timeout_s: float) -> None:
        """Opens the session where the client's connection leads, and closes the one there was."""
        left, left_id = self._link, self.session_id
        link = SessionLink(left.home, Route())
        response = link.home.unary(
            link.methods.sessions.OpenSession,
            self._reopen_request(),
            timeout_s,
            route=link.route,
        )
        self._apply_reopening(response)
        link.route.session_id = self.session_id
        self._link = link
        request = pb.CloseSessionRequest(session_id=left_id)

        def close() -> pb.CloseSessionResponse:
            return left.connection.unary(
                left.methods.sessions.CloseSession, request, FAREWELL_S, route=left.route
            )

        with suppress(LockstepError):  # lost, or out of reach
            left.reach(close)

    def _leave_draining(self, turn: Turn) -> None:
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
                self._open_again(timeout_s)

    def _call(
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

        def call() -> Response:
            self._check_open()
            if not settles:
                return self._send(method, request, turn)
            self._settle(turn)
            with self._leaving():
                return self._send(method, request, turn)

        return self._lasting(call, turn)

    def _lasting(self, use: Callable[[], Result], turn: Turn) -> Result:
        """Uses the session, which is opened again where it is lost, if that was asked for."""
        if self._reopens:
            self._leave_draining(turn)
        for pause_s in REOPENING_PAUSES_S if self._reopens else ():
            try:
                return self._link.reach(use)
            except LOSSES as error:
                self.reopen(timeout=turn.timeout_s)
                if isinstance(error, ConnectionFailed):
                    time.sleep(pause_s)  # the connection is made anew meanwhile
        return self._link.reach(use)

    def _settle(self, turn: Turn) -> None:
        """Waits until a call that was left is over, and undoes it if it was a generation."""
        self._check_open()
        if not self._unsettled:
            return
        if self._overrun:
            self._once_free(lambda methods: methods.sessions.Truncate, self._undo_request(), turn)
        else:
            request = pb.GetSessionRequest(session_id=self.session_id)
            self._once_free(lambda methods: methods.sessions.GetSession, request, turn)
        self._settled()

    def _once_free(
        self, method: "Method[Request, Response]", request: Request, turn: Turn
    ) -> Response:
        while True:
            try:
                return self._send(method, request, turn)
            except SessionBusy as error:
                time.sleep(turn.pause_s(error))

    def _send(self, method: "Method[Request, Response]", request: Request, turn: Turn) -> Response:
        link = self._link
        # Another one since the request was built, if the session was reopened.
        request.session_id = self.session_id  # type: ignore[attr-defined]
        return link.connection.unary(
            method(link.methods), request, turn.timeout_s, route=link.route
        )
