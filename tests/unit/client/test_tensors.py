import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep.v1.tensor_pb2 import DataType, Tensor, TensorChunk

from lockstep_client._values import tensors
from lockstep_client.exceptions import ProtocolError


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool"])
def test_an_array_survives_the_wire(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    received = tensors.from_message(tensors.to_message(array))
    assert received.dtype == array.dtype
    np.testing.assert_array_equal(received, array)


def test_bytes_are_little_endian_and_row_major():
    message = tensors.to_message(np.array([[1, 2], [3, 4]], dtype=">i4").T)
    assert message.data == struct.pack("<4i", 1, 3, 2, 4)
    assert list(message.shape) == [2, 2]


def test_an_element_type_that_the_wire_lacks_is_refused():
    with pytest.raises(TypeError, match="float64"):
        tensors.to_message(np.zeros(3))


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1))
def test_bfloat16_arrives_as_the_float32_with_the_same_upper_half(halves):
    data = struct.pack(f"<{len(halves)}H", *halves)
    message = Tensor(dtype=DataType.DATA_TYPE_BFLOAT16, shape=[len(halves)], data=data)
    received = tensors.from_message(message)
    assert received.dtype == np.float32
    assert (received.view(np.uint32) >> 16).tolist() == halves
    assert not (received.view(np.uint32) & 0xFFFF).any()


def test_a_tensor_in_pieces_is_complete_with_its_last_byte():
    row = np.arange(5, dtype=np.float32)
    data = row.tobytes()
    buffer = tensors.ChunkBuffer()
    for offset in range(0, len(data), 8):
        assert not buffer.complete
        buffer.add(
            TensorChunk(tensor_id=1, offset=offset, total_bytes=20, data=data[offset : offset + 8])
        )
    assert buffer.complete
    np.testing.assert_array_equal(buffer.row(DataType.DATA_TYPE_FLOAT32), row)


def test_a_missing_piece_is_noticed():
    buffer = tensors.ChunkBuffer()
    buffer.add(TensorChunk(tensor_id=3, offset=0, total_bytes=12, data=b"1234"))
    with pytest.raises(ProtocolError, match="Tensor 3"):
        buffer.add(TensorChunk(tensor_id=3, offset=8, total_bytes=12, data=b"9abc"))
