"""`grpc.health.v1`, which has no field for what else there is to say: that goes into metadata."""

from collections.abc import Callable, Mapping

from grpc_health.v1 import health, health_pb2

from rpc.handlers import Context

Describe = Callable[[], Mapping[str, str]]
"""Returns what is said beside the status, by metadata key."""


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """The standard servicer. Answers to `Check` carry a description as trailing metadata.

    Attributes:
        describe: returns it, whenever somebody asks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.describe: Describe = dict

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        context.set_trailing_metadata(tuple(self.describe().items()))
        response: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return response
