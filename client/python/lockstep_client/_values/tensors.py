"""Tensors of the wire as numpy arrays and back."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lockstep.v1.tensor_pb2 import DataType, Tensor, TensorChunk

from lockstep_client.exceptions import ProtocolError, WrongType

Array = npt.NDArray[Any]

# Element types of the wire. bfloat16 is missing: numpy has none, see `from_bytes`.
_NUMPY_TYPES: dict[DataType, np.dtype[Any]] = {
    DataType.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    DataType.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    DataType.DATA_TYPE_INT64: np.dtype("<i8"),
    DataType.DATA_TYPE_INT32: np.dtype("<i4"),
    DataType.DATA_TYPE_UINT8: np.dtype("u1"),
    DataType.DATA_TYPE_BOOL: np.dtype("?"),
}
_WIRE_TYPES = {dtype: wire for wire, dtype in _NUMPY_TYPES.items()}


def to_message(array: npt.ArrayLike) -> Tensor:
    """Builds the wire form of an array `[..]` of one of the types of `DataType`.

    Raises:
        TypeError: the wire has no such element type.
    """
    values = np.asarray(array)
    dtype = values.dtype.newbyteorder("<")
    if dtype not in _WIRE_TYPES:
        raise WrongType(f"An array of {values.dtype} cannot be sent.")
    data = np.ascontiguousarray(values, dtype=dtype).tobytes()
    return Tensor(dtype=_WIRE_TYPES[dtype], shape=values.shape, data=data)


def from_message(tensor: Tensor) -> Array:
    """Reads a tensor `[..]` of any dtype. bfloat16 becomes float32, which holds all its values."""
    return from_bytes(tensor.data, tensor.dtype, tensor.shape)


def from_bytes(data: bytes | bytearray, dtype: DataType, shape: Sequence[int]) -> Array:
    """Reads little-endian row-major bytes. The result may be read-only.

    Args:
        data: the elements.
        dtype: their type.
        shape: sizes of the dimensions; -1 infers one of them.

    Returns:
        `[*shape]` of that type; bfloat16 becomes float32.
    """
    if dtype == DataType.DATA_TYPE_BFLOAT16:
        upper_halves = np.frombuffer(data, dtype="<u2").astype("<u4")
        flat: Array = (upper_halves << 16).view("<f4")
    else:
        flat = np.frombuffer(data, dtype=_NUMPY_TYPES[dtype])
    if sys.byteorder == "big":
        flat = flat.astype(flat.dtype.newbyteorder("="))
    return flat.reshape(tuple(shape))


class ChunkBuffer:
    """Puts a tensor together whose bytes arrive in `TensorChunk`s."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._total_bytes = -1

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived."""
        return len(self._data) == self._total_bytes

    def add(self, chunk: TensorChunk) -> None:
        """Appends a piece.

        Raises:
            ProtocolError: the piece is not the one that comes next.
        """
        if chunk.offset != len(self._data):
            raise ProtocolError(
                f"Tensor {chunk.tensor_id}: a piece at byte {chunk.offset} arrived after "
                f"{len(self._data)} bytes."
            )
        self._data += chunk.data
        self._total_bytes = chunk.total_bytes

    def row(self, dtype: DataType) -> Array:
        """Returns the tensor as one row, `[V]` of the type; bfloat16 becomes float32."""
        return from_bytes(self._data, dtype, (-1,))
