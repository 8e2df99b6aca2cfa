# Generated from _async/deltas.py by `make client`.
"""The tokens of a running generation, blocking."""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from lockstep.v1 import model_service_pb2 as pb

from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._results.generation import TokenDelta
from lockstep_client._transport.endpoint import Timeout
from lockstep_client._transport.route import Route
from lockstep_client._transport.sync_connection import Connection

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.model_service_pb2_grpc import ModelServiceStub


def deltas(
    connection: Connection,
    stub: "ModelServiceStub",
    request: pb.GenerateRequest,
    assembler: GenerationAssembler,
    timeout: Timeout,
    route: Route | None = None,
) -> Generator[TokenDelta]:
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
    with closing(responses) as events:
        for event in events:
            yield from assembler.feed(event)
