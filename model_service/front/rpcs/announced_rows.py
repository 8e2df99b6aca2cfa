"""Full rows of a distribution that a message announces and chunks bring, so that it stays small."""

from collections.abc import Iterator

from lockstep.v1 import scores_pb2, tensor_pb2

from model_service.protocol.generation import Dtype
from wire.tensors import FLOATS

# What a piece takes in a message in addition to its data, at most: three numbers and their tags.
CHUNK_OVERHEAD_BYTES = 48


class AnnouncedRows:
    """Rows of one stream, each under an id of its own."""

    def __init__(self, max_chunk_bytes: int) -> None:
        """Starts a stream.

        Args:
            max_chunk_bytes: most bytes of a row in a message.
        """
        self._max_chunk_bytes = max_chunk_bytes
        self._waiting: list[tuple[int, bytes]] = []
        self._last_tensor_id = 0

    def announce(self, data: bytes, dtype: Dtype) -> scores_pb2.ScoreRow:
        """Writes the id of a row into the message; the row goes into the chunks after it."""
        self._last_tensor_id += 1
        self._waiting.append((self._last_tensor_id, data))
        return scores_pb2.ScoreRow(tensor_id=self._last_tensor_id, dtype=FLOATS[dtype])

    def chunks(self) -> Iterator[tensor_pb2.TensorChunk]:
        """Yields the rows announced since the last call."""
        waiting, self._waiting = self._waiting, []
        for tensor_id, data in waiting:
            for offset in range(0, len(data), self._max_chunk_bytes):
                yield _chunk(tensor_id, data, offset, self._max_chunk_bytes)

    def packs(self) -> Iterator[list[tensor_pb2.TensorChunk]]:
        """Yields the rows announced since the last call, as many at a time as a message holds."""
        waiting, self._waiting = self._waiting, []
        pack: list[tensor_pb2.TensorChunk] = []
        room = self._max_chunk_bytes
        for tensor_id, data in waiting:
            offset = 0
            while offset < len(data):
                if room <= CHUNK_OVERHEAD_BYTES:
                    yield pack
                    pack, room = [], self._max_chunk_bytes
                chunk = _chunk(tensor_id, data, offset, room - CHUNK_OVERHEAD_BYTES)
                pack.append(chunk)
                offset += len(chunk.data)
                room -= len(chunk.data) + CHUNK_OVERHEAD_BYTES
        if pack:
            yield pack


def _chunk(tensor_id: int, data: bytes, offset: int, most: int) -> tensor_pb2.TensorChunk:
    """Builds a piece of a row, of at most that many bytes."""
    return tensor_pb2.TensorChunk(
        tensor_id=tensor_id,
        offset=offset,
        total_bytes=len(data),
        data=data[offset : offset + most],
    )
