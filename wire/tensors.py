"""Tensors of the wire: dense, row-major, little-endian."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from lockstep.v1 import tensor_pb2
from numpy.typing import NDArray

from wire.violations import Violations

MAX_HIDDEN_SIZE = 2**16

Dtypes = Mapping[int, np.dtype[Any]]
"""Types of elements that a field takes: how numpy reads each."""

INTEGERS: Dtypes = {
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
}
MASKS: Dtypes = {
    **INTEGERS,
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("u1"),
}

FLOATS: Mapping[str, tensor_pb2.DataType] = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
}
FLOAT_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


def read_matrix(
    field: str, tensor: tensor_pb2.Tensor, dtypes: Dtypes, violations: Violations
) -> NDArray[Any] | None:
    """Reads a `[B, S]` tensor of one of the types.

    Args:
        field: its path in the request.
        tensor: the tensor.
        dtypes: the types that it may have.
        violations: what is wrong is noted here.

    Returns:
        The array, `[B, S]` of the type that the tensor has; None where it has none.
    """
    dtype = dtypes.get(tensor.dtype)
    if dtype is None:
        names = tensor_pb2.DataType.DESCRIPTOR.values_by_number
        allowed = ", ".join(names[x].name.removeprefix("DATA_TYPE_") for x in dtypes)
        violations.add(f"{field}.dtype", f"must be one of {allowed}")
        return None
    shape = tuple(tensor.shape)
    if len(shape) != 2 or min(shape) < 1:
        violations.add(f"{field}.shape", "must be [B, S], both >= 1")
        return None
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != num_bytes:
        violations.add(
            f"{field}.data",
            f"has {len(tensor.data)} bytes; shape {list(shape)} of this type has {num_bytes}",
        )
        return None
    return np.frombuffer(tensor.data, dtype=dtype).reshape(shape)


def read_vector(field: str, tensor: tensor_pb2.Tensor, violations: Violations) -> bytes:
    """Reads the values of an embedding row, `[H]` float32; nothing where they are wrong.

    Args:
        field: its path in the request.
        tensor: the tensor.
        violations: what is wrong is noted here.
    """
    if tensor.dtype != tensor_pb2.DATA_TYPE_FLOAT32:
        violations.add(f"{field}.dtype", "must be FLOAT32")
    elif len(tensor.shape) != 1 or not 1 <= tensor.shape[0] <= MAX_HIDDEN_SIZE:
        violations.add(f"{field}.shape", "must be [hidden size]")
    elif len(tensor.data) != 4 * tensor.shape[0]:
        violations.add(f"{field}.data", "must have the length that dtype and shape give")
    else:
        return tensor.data
    return b""


def vector(data: bytes, dtype: str = "float32") -> tensor_pb2.Tensor:
    """Writes the elements of a row, `[len(data) / size of an element]` of the type."""
    shape = [len(data) // FLOAT_BYTES[dtype]]
    return tensor_pb2.Tensor(dtype=FLOATS[dtype], shape=shape, data=data)


def matrix(array: NDArray[np.int64]) -> tensor_pb2.Tensor:
    """Writes an array, `[B, S]` int64."""
    data = array.astype("<i8").tobytes()
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT64, shape=array.shape, data=data)
