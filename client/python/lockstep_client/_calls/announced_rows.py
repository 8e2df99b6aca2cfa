"""Full rows of a stream that follow the message that announces them, in chunks."""

from collections.abc import Iterable, Iterator

from lockstep.v1 import scores_pb2 as scores_pb
from lockstep.v1 import tensor_pb2 as tensor_pb

from lockstep_client._results.scores import inline_row
from lockstep_client._values.tensors import Array, ChunkBuffer


class AnnouncedRows:
    """The rows of one stream that were not read yet."""

    def __init__(self) -> None:
        self._buffers: dict[int, ChunkBuffer] = {}

    def add(self, chunk: tensor_pb.TensorChunk) -> bool:
        """Takes a piece of a row and says whether the row is complete with it.

        Raises:
            ProtocolError: the piece is not the one that comes next.
        """
        buffer = self._buffers.setdefault(chunk.tensor_id, ChunkBuffer())
        buffer.add(chunk)
        return buffer.complete

    def complete(self, positions: Iterable[scores_pb.PositionScores]) -> bool:
        """Says whether every row that was announced at these positions has arrived."""
        return all(
            tensor_id in self._buffers and self._buffers[tensor_id].complete
            for tensor_id in announced(positions)
        )

    def take(self, row: scores_pb.ScoreRow, dtype: tensor_pb.DataType) -> Array:
        """Returns the values of a row, `[V]`, in its message or announced in it; forgets them.

        Args:
            row: the row.
            dtype: the element type where an older server does not say it.
        """
        if row.WhichOneof("values") == "tensor":
            return inline_row(row)
        return self._buffers.pop(row.tensor_id).row(row.dtype or dtype)


def announced(positions: Iterable[scores_pb.PositionScores]) -> Iterator[int]:
    """Yields the ids of the rows that follow."""
    for position in positions:
        for row in (position.logits, position.scores):
            if row.WhichOneof("values") == "tensor_id":
                yield row.tensor_id
