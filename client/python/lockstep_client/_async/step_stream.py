"""Steps of a session over one stream, for asyncio."""

from collections.abc import Callable, Sequence
from typing import Unpack

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client._async.duplex import AsyncDuplex
from lockstep_client._async.session_calls import AsyncSessionCalls
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.session_state import BUSY_LIMIT_S, LOSSES, StepResult, Turn
from lockstep_client._calls.step_reader import StepReader
from lockstep_client._requests.options import StepOptions
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._values.batch import Row
from lockstep_client._values.tensors import Array


@with_keywords
class AsyncStepStream(AsyncClosing):
    """Saves the cost of a call for each step. An error ends the stream, not the session.

    An answer may be larger than one message, see `StepStreamRequest.accept_chunks`.
    """

    def __init__(
        self,
        session: AsyncSessionCalls,
        begin: Callable[[], AsyncDuplex[pb.StepStreamRequest, pb.StepStreamResponse]],
    ) -> None:
        self._session = session
        self._begin = begin
        self._call = begin()
        self._session_id = session.session_id

    async def step(
        self, rows: Sequence[int | Row] | Array, **options: Unpack[StepOptions]
    ) -> StepResult:
        """Steps the session, see `Session.step`.

        Args:
            rows: as there; an array is `[B]` or `[B, T]` of any integer type.
            **options: see `StepOptions`.
        """
        request = self._session._step_request(rows, options)
        turn = Turn(self._session._link.home.endpoint.timeout_s)

        async def step() -> tuple[pb.StepResponse, StepReader]:
            await self._session._settle(Turn(BUSY_LIMIT_S))
            request.session_id = self._session.session_id
            if self._session_id != request.session_id:  # it was opened again, perhaps elsewhere
                await self._begin_anew()
            try:
                with self._session._leaving():
                    return await self._exchange(request)
            except LOSSES:  # the stream has ended with it
                await self._begin_anew()
                raise

        answer, reader = await self._session._lasting(step, turn)
        return self._session._apply_step(request, answer, reader.row)

    async def _begin_anew(self) -> None:
        await self._call.close()
        self._call = self._begin()
        self._session_id = self._session.session_id

    async def _exchange(self, request: pb.StepRequest) -> tuple[pb.StepResponse, StepReader]:
        self._call.send(
            pb.StepStreamRequest(step=request, accept_chunks=True, accept_packed_chunks=True)
        )
        reader, answer = StepReader(), None
        while answer is None:
            answer = reader.feed(await self._call.receive())
        return answer, reader

    async def close(self) -> None:
        """Ends the stream. The session goes on."""
        await self._call.close()
