"""Answers to steps as messages of their stream."""

from collections.abc import Iterator

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import scores_pb2

from model_service.front.rpcs import results
from model_service.front.rpcs.announced_rows import AnnouncedRows
from model_service.protocol.generation import Dtype


class StepWriter:
    """Keeps the rows of an answer in its message as long as they fit, and sends the others after.

    A client that takes no chunks gets all of them in the message.
    """

    def __init__(self, max_chunk_bytes: int) -> None:
        """Starts a stream.

        Args:
            max_chunk_bytes: most bytes of rows in a message.
        """
        self._max_chunk_bytes = max_chunk_bytes
        self._rows = AnnouncedRows(max_chunk_bytes)
        self._num_bytes = 0

    def write_row(self, data: bytes, dtype: Dtype) -> scores_pb2.ScoreRow:
        """Places a full row of the next answer. Serves as a `results.RowWriter`."""
        if self._num_bytes + len(data) > self._max_chunk_bytes:
            return self._rows.announce(data, dtype)
        self._num_bytes += len(data)
        return results.inline_row(data, dtype)

    def messages(
        self, answer: pb.StepResponse, *, packed: bool = False
    ) -> Iterator[pb.StepStreamResponse]:
        """Yields an answer whose rows were placed, and the rows that follow it.

        Args:
            answer: the answer.
            packed: whether a message may bring pieces of several rows.
        """
        self._num_bytes = 0
        yield pb.StepStreamResponse(step=answer)
        if packed:
            for pack in self._rows.packs():
                yield pb.StepStreamResponse(chunks=pack)
        for chunk in self._rows.chunks():
            yield pb.StepStreamResponse(chunk=chunk)
