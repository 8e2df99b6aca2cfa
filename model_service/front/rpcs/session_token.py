"""Tells callers which replica answered, so that later calls of a session find it again.

`x-session-token` is what llm-d's session filter reads and writes. Envoy's stateful
sessions may use the header of that name, too: a caller sends back whatever it got.
"""

import grpc

from model_service.front.sessions.replica import Replica
from rpc import handlers
from rpc.handlers import Context, Continuation, Handler

TOKEN_KEY = "x-session-token"
METHODS = (
    "/lockstep.v1.LogitsSessionService/",
    "/lockstep.v1.ModelService/Generate",  # GenerateStream, too
)


class SessionTokenInterceptor(grpc.aio.ServerInterceptor):
    """Sends the token with the answers to calls that came without one.

    A caller that has one keeps it: a gateway may have written its own in place of ours.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        has_token = any(key == TOKEN_KEY for key, _ in handler_call_details.invocation_metadata)
        if handler is None or has_token or not handler_call_details.method.startswith(METHODS):
            return handler
        return handlers.before_answer(handler, self._tell)

    async def _tell(self, context: Context) -> None:
        await context.send_initial_metadata(((TOKEN_KEY, self._replica.token),))
