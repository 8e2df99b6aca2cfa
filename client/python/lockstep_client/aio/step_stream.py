"""Steps of a session over one stream, for asyncio."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client.aio.connection import AsyncConnection, Requests
from lockstep_client.batch import Row
from lockstep_client.connection import Timeout
from lockstep_client.exceptions import ProtocolError
from lockstep_client.requests.session import StepOptions
from lockstep_client.session_state import SessionState, StepResult
from lockstep_client.step_reader import StepReader
from lockstep_client.tensors import Array

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceAsyncStub


class AsyncStepStream:
    """As `StepStream`, for asyncio."""

    def __init__(
        self,
        session: SessionState,
        connection: AsyncConnection,
        stub: "LogitsSessionServiceAsyncStub",
        timeout: Timeout,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._settle = settle
        self._requests = Requests[pb.StepStreamRequest]()
        self._responses = connection.exchange(stub.StepStream, self._requests, timeout)

    async def step(
        self, rows: Sequence[int | Row] | Array, **options: Unpack[StepOptions]
    ) -> StepResult:
        """See `StepStream.step`."""
        await self._settle()
        request = self._session.step_request(rows, options)
        self._requests.put(
            pb.StepStreamRequest(step=request, accept_chunks=True, accept_packed_chunks=True)
        )
        reader, answer = StepReader(), None
        with self._session.leaving():
            while answer is None:
                response = await anext(self._responses, None)
                if response is None:
                    raise ProtocolError("The model service ended the stream too early.")
                answer = reader.feed(response)
        return self._session.apply_step(answer, look_ahead=request.look_ahead, read_row=reader.row)

    async def close(self) -> None:
        """See `StepStream.close`."""
        await self._responses.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
