"""The frames and the shared ring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_service.protocol import Cancel, Commands, channel
from model_service.protocol.generation import SharedRow


@pytest.fixture
def ring():
    reader = channel.RingReader(64)
    writer = channel.RingWriter(reader.name)
    yield reader, writer
    writer.close()
    reader.close()


def put(writer, data: bytes):
    return writer.put(memoryview(data))


def test_a_row_written_by_one_end_is_read_by_the_other(ring):
    reader, writer = ring
    row = put(writer, b"abcd")
    assert isinstance(row, SharedRow)
    assert reader.take(row) == b"abcd"


def test_a_row_without_room_travels_inline(ring):
    _, writer = ring
    assert isinstance(put(writer, b"a" * 48), SharedRow)
    assert put(writer, b"b" * 32) == b"b" * 32


def test_a_row_larger_than_the_ring_travels_inline(ring):
    _, writer = ring
    assert put(writer, b"x" * 65) == b"x" * 65


def test_a_skipped_row_gives_its_room_back(ring):
    reader, writer = ring
    reader.skip(put(writer, b"a" * 48))
    writer.release(reader.consumed)
    assert isinstance(put(writer, b"b" * 48), SharedRow)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=80), st.booleans()), max_size=60))
def test_no_row_is_overwritten_before_it_is_read(steps):
    reader = channel.RingReader(64)
    writer = channel.RingWriter(reader.name)
    unread = []
    for data, read_now in steps:
        unread.append((put(writer, data), data))
        if read_now:
            for row, expected in unread:
                assert reader.take(row) == expected
            unread.clear()
            writer.release(reader.consumed)
    assert [reader.take(row) for row, _ in unread] == [data for _, data in unread]
    writer.close()
    reader.close()


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=8), st.integers(1, 16))
def test_frames_survive_any_fragmentation(request_ids, piece):
    stream = b"".join(channel.frame(Commands([Cancel(i)], consumed=i)) for i in request_ids)
    reader = channel.FrameReader()
    bodies = []
    for start in range(0, len(stream), piece):
        bodies += reader.feed(stream[start : start + piece])
    assert [channel.decode_commands(body).consumed for body in bodies] == request_ids
