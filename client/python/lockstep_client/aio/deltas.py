"""The tokens of a running generation, for asyncio."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from lockstep.v1 import model_service_pb2 as pb

from lockstep_client.aio.connection import AsyncConnection
from lockstep_client.assembly import GenerationAssembler
from lockstep_client.connection import Timeout
from lockstep_client.results.generation import TokenDelta

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.model_service_pb2_grpc import ModelServiceAsyncStub


async def deltas(
    connection: AsyncConnection,
    stub: "ModelServiceAsyncStub",
    request: pb.GenerateRequest,
    assembler: GenerationAssembler,
    timeout: Timeout,
) -> AsyncGenerator[TokenDelta]:
    """See `sync.deltas`."""
    message = pb.GenerateStreamRequest(request=request)
    async with aclosing(connection.stream(stub.GenerateStream, message, timeout)) as events:
        async for event in events:
            for delta in assembler.feed(event):
                yield delta
