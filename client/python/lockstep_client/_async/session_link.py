"""Where a session is reached, for asyncio: through the client's connection, or at its replica."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceStub
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from lockstep_client._transport.async_connection import AsyncConnection
from lockstep_client._transport.route import Route
from lockstep_client.exceptions import ConnectionFailed, SessionOnOtherReplica

Result = TypeVar("Result")

MOST_MOVES: Final = 3
"""How often one call is sent to another replica, before it fails."""


class AsyncSessionMethods:
    """What is called about sessions, over one connection.

    Attributes:
        sessions: the service of sessions.
        model: the service that lets them generate.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self.sessions = LogitsSessionServiceStub(connection.channel)
        self.model = ModelServiceStub(connection.channel)


class AsyncSessionLink:
    """The connection that calls of a session use, which changes when its replica is told.

    A replica that has not the session does nothing with a call, so that any call may be
    sent again.

    Attributes:
        home: the client's connection.
        connection: the one in use.
        methods: the methods, over that one.
        route: what gateways are told.
    """

    def __init__(self, home: AsyncConnection, route: Route) -> None:
        self.home = home
        self.route = route
        self._use(home)

    def fork(self, session_id: str) -> "AsyncSessionLink":
        """Returns the link of a session that the same replica has."""
        link = AsyncSessionLink(self.home, Route(session_id, self.route.token, self.route.channels))
        link._use(self.connection)
        return link

    async def reach(self, use: Callable[[], Awaitable[Result]]) -> Result:
        """Makes calls of the session, again at its replica where they have reached another.

        Raises:
            SessionOnOtherReplica: the replica is not known well enough, or not to be followed to.
        """
        for _ in range(MOST_MOVES):
            try:
                return await use()
            except SessionOnOtherReplica as error:
                if not self._move(error):
                    raise
            except ConnectionFailed:
                self._use(self.home)
                raise
        return await use()

    def _move(self, error: SessionOnOtherReplica) -> bool:
        """Goes where the session is said to be. Returns whether that is somewhere else."""
        place = self.home.replica(error.metadata.get("address", "")) or self.home
        if place is not self.connection:
            self._use(place)
            return True
        token = self.route.token
        self.route.name(error.metadata.get("replica", ""))
        return self.route.token != token

    def _use(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.methods = connection.kept(AsyncSessionMethods)
