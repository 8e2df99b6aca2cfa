"""Puts the answer to a step of a stream together. Pure: reads messages, no I/O."""

from itertools import chain

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import scores_pb2 as scores_pb
from lockstep.v1.tensor_pb2 import DataType

from lockstep_client._calls.announced_rows import AnnouncedRows, announced
from lockstep_client._values.tensors import Array
from lockstep_client.exceptions import ProtocolError


class StepReader:
    """The answer to one step, which is complete when all of its rows have arrived."""

    def __init__(self) -> None:
        self._rows = AnnouncedRows()
        self._answer: pb.StepResponse | None = None
        self._missing: set[int] = set()

    def feed(self, message: pb.StepStreamResponse) -> pb.StepResponse | None:
        """Takes a message and returns the answer if that completes it.

        Raises:
            ProtocolError: the message does not continue the answer.
        """
        if self._answer is None and message.HasField("step"):
            self._answer = message.step
            self._missing = set(announced(chain.from_iterable(r.scores for r in message.step.rows)))
            return None if self._missing else self._answer
        pieces = [message.chunk] if message.HasField("chunk") else message.chunks
        if not pieces or message.HasField("step"):
            raise ProtocolError("A message of the stream does not continue the answer.")
        for piece in pieces:
            if piece.tensor_id not in self._missing:
                raise ProtocolError("A message of the stream does not continue the answer.")
            if self._rows.add(piece):
                self._missing.discard(piece.tensor_id)
        return None if self._missing else self._answer

    def row(self, row: scores_pb.ScoreRow) -> Array:
        """Returns a row of a complete answer, `[V]` of the row's type; bfloat16 as float32."""
        return self._rows.take(row, DataType.DATA_TYPE_FLOAT32)
