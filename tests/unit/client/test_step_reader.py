"""An answer of a stream of steps is complete when its rows are."""

import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import scores_pb2, tensor_pb2

from lockstep_client._calls.step_reader import StepReader
from lockstep_client.exceptions import ProtocolError

ROW = np.arange(4, dtype="<f4")


def announcing(*tensor_ids: int) -> pb.StepStreamResponse:
    scores = [
        scores_pb2.PositionScores(
            logits=scores_pb2.ScoreRow(tensor_id=i, dtype=tensor_pb2.DATA_TYPE_FLOAT32)
        )
        for i in tensor_ids
    ]
    return pb.StepStreamResponse(step=pb.StepResponse(rows=[pb.StepRowResult(scores=scores)]))


def chunk(tensor_id: int, start: int = 0, end: int = 16) -> pb.StepStreamResponse:
    data = ROW.tobytes()[start:end]
    return pb.StepStreamResponse(
        chunk=tensor_pb2.TensorChunk(tensor_id=tensor_id, offset=start, total_bytes=16, data=data)
    )


def test_an_answer_without_announced_rows_is_complete_at_once():
    assert StepReader().feed(announcing()) is not None


def test_an_answer_waits_for_the_last_byte_of_its_last_row():
    reader = StepReader()
    messages = [announcing(3, 4), chunk(3, 0, 8), chunk(3, 8), chunk(4, 0, 12)]
    assert [reader.feed(message) for message in messages] == [None] * 4
    answer = reader.feed(chunk(4, 12))
    assert answer is not None
    for scores in answer.rows[0].scores:
        np.testing.assert_array_equal(reader.row(scores.logits), ROW)


def packed(*messages: pb.StepStreamResponse) -> pb.StepStreamResponse:
    return pb.StepStreamResponse(chunks=[message.chunk for message in messages])


def test_pieces_may_come_several_at_a_time():
    reader = StepReader()
    assert reader.feed(announcing(3, 4)) is None
    assert reader.feed(packed(chunk(3), chunk(4, 0, 8))) is None
    answer = reader.feed(packed(chunk(4, 8)))
    assert answer is not None
    for scores in answer.rows[0].scores:
        np.testing.assert_array_equal(reader.row(scores.logits), ROW)


@pytest.mark.parametrize(
    "messages",
    [
        [chunk(1)],
        [announcing(1), packed(chunk(1), chunk(2))],
        [announcing(1), packed(chunk(1), chunk(1))],
        [announcing(1), announcing(2)],
        [announcing(1), chunk(2)],
        [announcing(1), chunk(1, 8)],
        [pb.StepStreamResponse()],
    ],
)
def test_a_message_that_does_not_continue_the_answer_is_an_error(messages):
    *first, last = messages
    reader = StepReader()
    for message in first:
        reader.feed(message)
    with pytest.raises(ProtocolError):
        reader.feed(last)
