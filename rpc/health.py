"""`grpc.health.v1`, answered by threads, so that a busy event loop is not taken for a dead one.

The protocol has no field for details; they are sent as metadata.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rpc.options import HEALTH_OPTIONS, HEALTH_THREADS

LIVENESS = "liveness"

# Longer than any work holds the loop: a loop that is silent for this long does not recover.
LOOP_DEAD_S = 60.0
_PULSE_S = 1.0

Describe = Callable[[], Mapping[str, str]]
"""Returns what is sent with the status, by metadata key. Called by any thread."""


class HealthServer:
    """Serves the health of a service on its own port, until it is stopped.

    `Check` answers `NOT_SERVING`, whatever is asked for, once the event loop has not
    run for `LOOP_DEAD_S`: then no call gets an answer, and a supervisor should
    restart the service. Until then, a loop that does not run counts as busy.

    Attributes:
        grpc: the server, for binding its port.
    """

    def __init__(self, service_names: Sequence[str]) -> None:
        """Prepares the server. Nothing but liveness is `SERVING`."""
        self._names = (health.OVERALL_HEALTH, *service_names)
        self._servicer = _HealthServicer()
        self._servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self.set_ready(False)
        self.grpc = grpc.server(
            ThreadPoolExecutor(HEALTH_THREADS, thread_name_prefix="health"),
            options=HEALTH_OPTIONS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self.grpc)
        self._pulse: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to serve, and to watch the running event loop."""
        self._pulse = asyncio.get_running_loop().create_task(self._servicer.beat_forever())
        self.grpc.start()

    def set_ready(self, ready: bool) -> None:
        """Tells probes, now, whether the service takes calls. Does not wait for watchers."""
        statuses = health_pb2.HealthCheckResponse
        for name in self._names:
            self._servicer.set(name, statuses.SERVING if ready else statuses.NOT_SERVING)

    def describe(self, describe: Describe) -> None:
        """Sends what `describe` returns with every answer to `Check`."""
        self._servicer.description = describe

    async def stop(self) -> None:
        """Ends all calls and closes the port."""
        if self._pulse is not None:
            self._pulse.cancel()
        await asyncio.to_thread(self.grpc.stop(None).wait)


class _HealthServicer(health.HealthServicer):  # type: ignore[misc]  # it has no types
    """The standard servicer, with a description, and with the pulse of an event loop."""

    def __init__(self) -> None:
        # A `Watch` that blocks its thread never blocks the thread that sets a status.
        super().__init__(experimental_non_blocking=False)
        self.description: Describe = dict
        self._last_beat = time.monotonic()

    async def beat_forever(self) -> None:
        """Shows that the event loop runs."""
        while True:
            self._last_beat = time.monotonic()
            await asyncio.sleep(_PULSE_S)

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        context.set_trailing_metadata(tuple(self.description().items()))
        response: health_pb2.HealthCheckResponse = super().Check(request, context)
        if time.monotonic() - self._last_beat > LOOP_DEAD_S:
            response.status = health_pb2.HealthCheckResponse.NOT_SERVING
        return response
