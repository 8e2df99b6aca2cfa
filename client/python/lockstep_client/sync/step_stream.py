"""Steps of a session over one stream, blocking."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Self, Unpack

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceStub

from lockstep_client.batch import Row
from lockstep_client.connection import Timeout
from lockstep_client.exceptions import ProtocolError
from lockstep_client.requests.session import StepOptions
from lockstep_client.session_state import SessionState, StepResult
from lockstep_client.step_reader import StepReader
from lockstep_client.sync.connection import Connection
from lockstep_client.tensors import Array


class StepStream:
    """Saves the cost of a call for each step. An error ends the stream, not the session.

    An answer may be larger than one message, see `StepStreamRequest.accept_chunks`.
    """

    def __init__(
        self,
        session: SessionState,
        connection: Connection,
        stub: LogitsSessionServiceStub,
        timeout: Timeout,
        settle: Callable[[], None],
    ) -> None:
        self._session = session
        self._settle = settle
        self._requests: SimpleQueue[pb.StepStreamRequest | None] = SimpleQueue()
        self._responses = connection.exchange(
            stub.StepStream, iter(self._requests.get, None), timeout
        )

    def step(self, rows: Sequence[int | Row] | Array, **options: Unpack[StepOptions]) -> StepResult:
        """Steps the session, see `Session.step`."""
        self._settle()
        request = self._session.step_request(rows, options)
        self._requests.put(
            pb.StepStreamRequest(step=request, accept_chunks=True, accept_packed_chunks=True)
        )
        reader, answer = StepReader(), None
        with self._session.leaving():
            while answer is None:
                response = next(self._responses, None)
                if response is None:
                    raise ProtocolError("The model service ended the stream too early.")
                answer = reader.feed(response)
        return self._session.apply_step(answer, look_ahead=request.look_ahead, read_row=reader.row)

    def close(self) -> None:
        """Ends the stream. The session goes on."""
        self._responses.close()
        self._requests.put(None)  # lets gRPC's thread go that waits for requests

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
