"""The rows of the embedding, in a buffer with room for more.

A new id's row is written into the reserve and is there: the layer, its hooks and
its scale stay what they are. Where the reserve ends, a larger buffer is filled
aside, in slices between steps, and takes the place of the old one in one moment.

E: width of an embedding row.
"""

from collections.abc import Iterator

from torch import Tensor, nn

# What is copied at once: a few milliseconds.
SLICE_BYTES = 4 << 20


class GrowingEmbedding:
    """Owns the weight of an embedding layer."""

    def __init__(self, layer: nn.Embedding, size: int, reserved_rows: int) -> None:
        """Takes over a layer.

        Args:
            layer: the layer.
            size: ids that exist. Those that the layer has no row for get one of zeros, which
                nothing reads: row numbers are ids.
            reserved_rows: rows that can be added without a new allocation. What the checkpoint is
                padded with counts as well: the matrix never shrinks.
        """
        weight = layer.weight.detach()
        self.reserve = reserved_rows
        self.size = size
        self._layer = layer
        self._buffer = weight.new_zeros(max(size + reserved_rows, len(weight)), weight.shape[1])
        self._buffer[: min(size, len(weight))] = weight[:size]
        self._bind()

    @property
    def rows(self) -> Tensor:
        """The rows of ids that exist, `[size, E]` in the model's dtype."""
        return self._buffer[: self.size]

    @property
    def num_reserved(self) -> int:
        """Rows that can be added before more memory is allocated."""
        return len(self._buffer) - self.size

    def add(self, row: Tensor) -> None:
        """Appends a row `[E]` of any dtype, for which there is room."""
        self._buffer[self.size] = row
        self.size += 1

    def enlarge(self, num_rows: int) -> Iterator[None]:
        """Makes room, a slice at a time. Rows may be added in between.

        Args:
            num_rows: rows of the new buffer.

        Raises:
            RuntimeError: memory is not sufficient. Nothing is changed.
        """
        larger = self._buffer.new_empty(num_rows, self._buffer.shape[1])
        count = max(1, SLICE_BYTES // (larger.element_size() * larger.shape[1]))
        copied = 0
        while copied < self.size:
            end = min(copied + count, self.size)
            larger[copied:end] = self._buffer[copied:end]
            copied = end
            yield
        self._buffer = larger
        self._bind()

    def shrink(self, size: int) -> None:
        """Forgets the rows from `size` on."""
        self._buffer[size : self.size] = 0
        self.size = size

    def _bind(self) -> None:
        self._layer.weight = nn.Parameter(self._buffer, requires_grad=False)
        self._layer.num_embeddings = len(self._buffer)
