import numpy as np
import pytest
from lockstep.v1 import error_reason_pb2, generation_pb2, scores_pb2, tensor_pb2
from lockstep.v1 import model_service_pb2 as pb

from lockstep_client import exceptions
from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._values import tensors

V = 4
LOGITS = tensor_pb2.DATA_TYPE_FLOAT32


def _request(dtype=LOGITS) -> pb.GenerateRequest:
    return pb.GenerateRequest(scores=scores_pb2.ScoreSelection(logits=True, full=True, dtype=dtype))


def _row(token: int) -> np.ndarray:
    return np.arange(V, dtype=np.float32) + 10 * token


def _inline(token: int) -> scores_pb2.PositionScores:
    row = scores_pb2.ScoreRow(tensor=tensors.to_message(_row(token)))
    return scores_pb2.PositionScores(position=token, token_id=token, logits=row)


def _announced(token: int, tensor_id: int) -> scores_pb2.PositionScores:
    row = scores_pb2.ScoreRow(tensor_id=tensor_id)
    return scores_pb2.PositionScores(position=token, token_id=token, logits=row)


def _delta(prompt: int, token: int, *scores: scores_pb2.PositionScores) -> pb.TokenDelta:
    return pb.TokenDelta(prompt_index=prompt, token_ids=[token], scores=scores)


def _deltas(*deltas: pb.TokenDelta) -> pb.GenerateStreamResponse:
    return pb.GenerateStreamResponse(deltas=pb.TokenDeltas(deltas=deltas))


def _chunks(tensor_id: int, token: int, size: int = 8) -> list[pb.GenerateStreamResponse]:
    data = _row(token).tobytes()
    return [
        pb.GenerateStreamResponse(
            chunk=tensor_pb2.TensorChunk(
                tensor_id=tensor_id,
                offset=offset,
                total_bytes=len(data),
                data=data[offset : offset + size],
            )
        )
        for offset in range(0, len(data), size)
    ]


def _finished(prompt: int, **fields: object) -> pb.GenerateStreamResponse:
    sequence = generation_pb2.GeneratedSequence(
        prompt_index=prompt,
        seed=100 + prompt,
        **{"finish_reason": generation_pb2.FINISH_REASON_MAX_NEW_TOKENS} | fields,
    )
    return pb.GenerateStreamResponse(finished=pb.SequenceFinished(sequence=sequence))


STARTED = pb.GenerateStreamResponse(
    started=pb.GenerationStarted(
        effective_config=generation_pb2.GenerationConfig(temperature=0.7),
        applied_processors=["temperature"],
    )
)
COMPLETED = pb.GenerateStreamResponse(
    completed=pb.GenerationCompleted(usage=generation_pb2.Usage(completion_token_count=3))
)


def _feed(assembler: GenerationAssembler, *events: pb.GenerateStreamResponse) -> list[tuple]:
    return [
        (delta.prompt_index, *delta.token_ids)
        for event in events
        for delta in assembler.feed(event)
    ]


def test_a_delta_waits_for_the_last_byte_of_its_row():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    first, second = _chunks(1, token=2)
    assert _feed(assembler, STARTED, _deltas(_delta(0, 2, _announced(2, 1))), first) == []
    (delta,) = assembler.feed(second)
    np.testing.assert_array_equal(delta.scores[0].logits, _row(2))


def test_deltas_keep_their_order_whichever_row_is_complete_first():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    announced = _deltas(_delta(0, 2, _announced(2, 1)), _delta(1, 3, _announced(3, 2)))
    first, second = _chunks(1, token=2)
    assert _feed(assembler, announced, first, *_chunks(2, token=3)) == []
    assert _feed(assembler, second) == [(0, 2), (1, 3)]


def test_a_delta_without_rows_does_not_overtake_one_that_waits():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    assert _feed(assembler, _deltas(_delta(0, 2, _announced(2, 1)))) == []
    assert _feed(assembler, _deltas(_delta(1, 3))) == []
    assert _feed(assembler, *_chunks(1, token=2)) == [(0, 2), (1, 3)]


def test_pieces_of_two_rows_may_alternate():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    position = _announced(2, 1)
    position.scores.tensor_id = 2
    assembler.feed(_deltas(_delta(0, 2, position)))
    mixed = [e for pair in zip(_chunks(1, 2), _chunks(2, 3), strict=True) for e in pair]
    (delta,) = [delta for event in mixed for delta in assembler.feed(event)]
    np.testing.assert_array_equal(delta.scores[0].logits, _row(2))
    np.testing.assert_array_equal(delta.scores[0].scores, _row(3))


def test_the_result_has_every_sequence_and_nan_after_the_end_of_a_shorter_one():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    for event in (
        STARTED,
        _deltas(_delta(0, 2, _inline(2)), _delta(1, 3, _inline(3))),
        _finished(1, finish_reason=generation_pb2.FINISH_REASON_EOS_TOKEN),
        _deltas(_delta(0, 1, _inline(1))),
        _finished(0),
        COMPLETED,
    ):
        assembler.feed(event)
    result = assembler.result()
    assert result.sequences == [[2, 1], [3]]
    assert result.finish_reasons == ["max_new_tokens", "eos_token"]
    assert result.seeds == [100, 101]
    assert result.effective_config == {"temperature": 0.7}
    assert result.usage.completion_token_count == 3
    assert result.logits is not None
    assert result.logits.shape == (2, 2, V)
    np.testing.assert_array_equal(result.logits[0], [_row(2), _row(1)])
    np.testing.assert_array_equal(result.logits[1, 0], _row(3))
    assert np.isnan(result.logits[1, 1]).all()
    assert result.scores is None


def test_bfloat16_rows_in_pieces_are_read_as_the_type_that_was_asked_for():
    assembler = GenerationAssembler(_request(tensor_pb2.DATA_TYPE_BFLOAT16), keep_scores=True)
    assembler.feed(_deltas(_delta(0, 2, _announced(2, 1))))
    data = (np.array([1.5, -2.0], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    chunk = tensor_pb2.TensorChunk(tensor_id=1, total_bytes=len(data), data=data)
    (delta,) = assembler.feed(pb.GenerateStreamResponse(chunk=chunk))
    assert delta.scores[0].logits.tolist() == [1.5, -2.0]


def test_a_stream_keeps_tokens_but_not_the_rows_that_its_reader_got():
    assembler = GenerationAssembler(_request(), keep_scores=False)
    for event in (STARTED, _deltas(_delta(0, 2, _inline(2))), _finished(0), COMPLETED):
        assembler.feed(event)
    result = assembler.result()
    assert result.sequences == [[2]]
    assert result.logits is None


def test_a_sequence_that_failed_does_not_hide_the_others():
    assembler = GenerationAssembler(_request(), keep_scores=True, raises=False)
    error = error_reason_pb2.ItemError(
        code=13, reason=error_reason_pb2.ERROR_REASON_NON_FINITE_LOGITS, message="text"
    )
    for event in (
        STARTED,
        _deltas(_delta(0, 2)),
        _finished(0),
        _finished(1, finish_reason=generation_pb2.FINISH_REASON_ERROR, error=error),
        COMPLETED,
    ):
        assembler.feed(event)
    result = assembler.result()
    assert result.finish_reasons == ["max_new_tokens", "error"]
    assert result.details[0].error is None
    with pytest.raises(exceptions.NonFiniteLogits):
        result.raise_for_errors()


def test_a_finish_reason_of_a_newer_server_is_finished_all_the_same():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    for event in (STARTED, _finished(0, finish_reason=77), COMPLETED):
        assembler.feed(event)
    assert assembler.result().finish_reasons == ["unknown_77"]


def test_there_is_no_result_before_the_stream_has_ended():
    assembler = GenerationAssembler(_request(), keep_scores=True)
    assembler.feed(STARTED)
    with pytest.raises(exceptions.ProtocolError):
        assembler.result()
