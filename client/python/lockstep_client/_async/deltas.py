"""The tokens of a running generation, for asyncio."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from lockstep.v1 import model_service_pb2 as pb

from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._results.generation import TokenDelta
from lockstep_client._transport.async_connection import AsyncConnection
from lockstep_client._transport.endpoint import Timeout
from lockstep_client._transport.route import Route

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.model_service_pb2_grpc import ModelServiceAsyncStub


async def deltas(
    connection: AsyncConnection,
    stub: "ModelServiceAsyncStub",
    request: pb.GenerateRequest,
    assembler: GenerationAssembler,
    timeout: Timeout,
    route: Route | None = None,
) -> AsyncGenerator[TokenDelta]:
    """Runs a generation; closing the generator cancels it.

    Args:
        connection: where it runs.
        stub: of the model service.
        request: what is generated.
        assembler: takes every event, and has the result in the end.
        timeout: of the whole call, in seconds.
        route: of the session that it is about, if there is one.
    """
    message = pb.GenerateStreamRequest(request=request)
    responses = connection.stream(stub.GenerateStream, message, timeout, route=route)
    async with aclosing(responses) as events:
        async for event in events:
            for delta in assembler.feed(event):
                yield delta
