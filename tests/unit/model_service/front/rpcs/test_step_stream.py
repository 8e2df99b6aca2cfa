"""Answers to steps as messages: complete, in order, and not too large."""

from lockstep.v1 import logits_session_service_pb2 as pb

from model_service.front.rpcs import results
from model_service.front.rpcs.step_stream import StepWriter
from model_service.protocol import SessionRowAnswer
from model_service.protocol.generation import PositionScores

LIMIT = 1000


def answer(writer: StepWriter, *sizes: int) -> list[pb.StepStreamResponse]:
    """Writes one row of a session with so many bytes of logits at each position."""
    scores = [PositionScores(position=i, logits=bytes([i]) * n) for i, n in enumerate(sizes)]
    row = results.step_row_result(SessionRowAnswer(9, scores), 0, writer.write_row)
    return [*writer.messages(pb.StepResponse(rows=[row]))]


def rows_of(message: pb.StepStreamResponse) -> list:
    return [scores.logits for scores in message.step.rows[0].scores]


def test_rows_stay_in_the_message_while_they_fit():
    step, *chunks = answer(StepWriter(LIMIT), 400, 400, 400, 200)
    inline = [len(row.tensor.data) for row in rows_of(step)]
    assert inline == [400, 400, 0, 200]
    assert [bytes(m.chunk.data) for m in chunks] == [bytes([2]) * 400]


def test_a_row_larger_than_a_message_comes_in_pieces():
    step, *chunks = answer(StepWriter(LIMIT), 2500)
    (row,) = rows_of(step)
    assert [(m.chunk.offset, len(m.chunk.data)) for m in chunks] == [
        (0, 1000),
        (1000, 1000),
        (2000, 500),
    ]
    assert {(m.chunk.tensor_id, m.chunk.total_bytes) for m in chunks} == {(row.tensor_id, 2500)}


def packs(*sizes: int) -> list[list]:
    """Sends rows that do not fit their message in packs, and returns these."""
    writer = StepWriter(LIMIT)
    scores = [PositionScores(position=i, logits=bytes([i]) * n) for i, n in enumerate(sizes)]
    row = results.step_row_result(SessionRowAnswer(9, scores), 0, writer.write_row)
    step, *packed = writer.messages(pb.StepResponse(rows=[row]), packed=True)
    assert not any(message.HasField("chunk") or message.HasField("step") for message in packed)
    assert all(message.ByteSize() <= LIMIT for message in packed)
    followed = {row.tensor_id: size for row, size in zip(rows_of(step), sizes, strict=True)}
    found: dict[int, int] = {}
    for message in packed:
        for piece in message.chunks:
            assert piece.offset == found.setdefault(piece.tensor_id, 0)
            assert piece.total_bytes == followed[piece.tensor_id]
            found[piece.tensor_id] += len(piece.data)
    assert found == {tensor_id: size for tensor_id, size in followed.items() if tensor_id}
    return [list(message.chunks) for message in packed]


def test_small_rows_share_messages():
    assert len(packs(LIMIT, *[100] * 20)) == 4


def test_a_row_larger_than_a_message_continues_in_the_next_ones():
    assert len(packs(2500, 300, 800)) == 4


def test_rows_of_a_few_bytes_do_not_make_a_message_too_large():
    assert len(packs(LIMIT, *[1] * 100)) == 5


def test_every_answer_has_the_whole_room_and_ids_of_its_own():
    writer = StepWriter(LIMIT)
    first, second = answer(writer, 900, 1200), answer(writer, 900, 1200)
    assert [len(rows_of(m[0])[0].tensor.data) for m in (first, second)] == [900, 900]
    assert [rows_of(m[0])[1].tensor_id for m in (first, second)] == [1, 2]
