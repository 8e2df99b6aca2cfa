# Generated from _async/step_stream.py by `make client`.
"""Steps of a session over one stream, blocking."""

from collections.abc import Callable, Sequence
from typing import Unpack

from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.session_state import BUSY_LIMIT_S, LOSSES, StepResult, Turn
from lockstep_client._calls.step_reader import StepReader
from lockstep_client._requests.options import StepOptions
from lockstep_client._sync.duplex import Duplex
from lockstep_client._sync.session_calls import SessionCalls
from lockstep_client._transport.closing import Closing
from lockstep_client._values.batch import Row
from lockstep_client._values.tensors import Array


@with_keywords
class StepStream(Closing):
    """Saves the cost of a call for each step. An error ends the stream, not the session.

    An answer may be larger than one message, see `StepStreamRequest.accept_chunks`.
    """

    def __init__(
        self,
        session: SessionCalls,
        begin: Callable[[], Duplex[pb.StepStreamRequest, pb.StepStreamResponse]],
    ) -> None:
        self._session = session
        self._begin = begin
        self._call = begin()
        self._session_id = session.session_id

    def step(self, rows: Sequence[int | Row] | Array, **options: Unpack[StepOptions]) -> StepResult:
        """Steps the session, see `Session.step`.

        Args:
            rows: as there; an array is `[B]` or `[B, T]` of any integer type.
            **options: see `StepOptions`.
        """
        request = self._session._step_request(rows, options)
        turn = Turn(self._session._link.home.endpoint.timeout_s)

        def step() -> tuple[pb.StepResponse, StepReader]:
            self._session._settle(Turn(BUSY_LIMIT_S))
            request.session_id = self._session.session_id
            if self._session_id != request.session_id:  # it was opened again, perhaps elsewhere
                self._begin_anew()
            try:
                with self._session._leaving():
                    return self._exchange(request)
            except LOSSES:  # the stream has ended with it
                self._begin_anew()
                raise

        answer, reader = self._session._lasting(step, turn)
        return self._session._apply_step(request, answer, reader.row)

    def _begin_anew(self) -> None:
        self._call.close()
        self._call = self._begin()
        self._session_id = self._session.session_id

    def _exchange(self, request: pb.StepRequest) -> tuple[pb.StepResponse, StepReader]:
        self._call.send(
            pb.StepStreamRequest(step=request, accept_chunks=True, accept_packed_chunks=True)
        )
        reader, answer = StepReader(), None
        while answer is None:
            answer = reader.feed(self._call.receive())
        return answer, reader

    def close(self) -> None:
        """Ends the stream. The session goes on."""
        self._call.close()
