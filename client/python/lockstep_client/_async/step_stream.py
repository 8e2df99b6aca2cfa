"""Steps of a session over one stream, for asyncio."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Unpack

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client._async.duplex import AsyncDuplex
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.session_state import SessionState, StepResult
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
        session: SessionState,
        call: AsyncDuplex[pb.StepStreamRequest, pb.StepStreamResponse],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._call = call
        self._settle = settle

    async def step(
        self, rows: Sequence[int | Row] | Array, **options: Unpack[StepOptions]
    ) -> StepResult:
        """Steps the session, see `Session.step`.

        Args:
            rows: as there; an array is `[B]` or `[B, T]` of any integer type.
            **options: see `StepOptions`.
        """
        await self._settle()
        request = self._session._step_request(rows, options)
        self._call.send(
            pb.StepStreamRequest(step=request, accept_chunks=True, accept_packed_chunks=True)
        )
        reader, answer = StepReader(), None
        with self._session._leaving():
            while answer is None:
                answer = reader.feed(await self._call.receive())
        return self._session._apply_step(answer, look_ahead=request.look_ahead, read_row=reader.row)

    async def close(self) -> None:
        """Ends the stream. The session goes on."""
        await self._call.close()
