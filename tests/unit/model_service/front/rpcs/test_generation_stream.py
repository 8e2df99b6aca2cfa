"""Messages of a stream: complete, in order, and not too large."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep.v1 import tensor_pb2

from model_service.front.rpcs.generation_stream import StreamWriter
from model_service.protocol import Failure, Finish, SequenceSpec, SequenceTokens
from model_service.protocol.generation import PositionScores

LIMIT = 1000
PLAN = SimpleNamespace(
    indices=lambda row: divmod(row, 2),
    sequences=[SequenceSpec([1], seed=10 * row) for row in range(8)],
)


def position(index: int, num_bytes: int) -> PositionScores:
    row = bytes([index % 251]) * num_bytes if num_bytes else None
    return PositionScores(position=index, token_id=index, logits=row)


def event(row: int, ids: list[int], num_bytes: int = 0, finish=None) -> SequenceTokens:
    scores = [position(i, num_bytes) for i in ids] if num_bytes else []
    return SequenceTokens(7, row, ids, scores=scores, finish=finish)


def write(*events: SequenceTokens):
    return list(StreamWriter(PLAN, LIMIT).write(list(events)))


def test_one_step_of_all_rows_is_one_message():
    (message,) = write(event(0, [5]), event(3, [6]))
    deltas = [(d.prompt_index, d.sequence_index, list(d.token_ids)) for d in message.deltas.deltas]
    assert deltas == [(0, 0, [5]), (1, 1, [6])]


def test_the_end_of_a_row_follows_its_tokens():
    tokens, finished = write(event(3, [6], finish=Finish("eos_token")))
    assert list(tokens.deltas.deltas[0].token_ids) == [6]
    sequence = finished.finished.sequence
    assert (sequence.prompt_index, sequence.sequence_index, sequence.seed) == (1, 1, 30)
    assert sequence.finish_reason == 1
    assert not sequence.token_ids


def test_a_row_that_failed_has_its_error_and_no_tokens():
    failure = Failure("NonFiniteLogits", {"row": 0, "position": 4})
    (finished,) = write(event(0, [], finish=Finish("error", failure=failure)))
    assert finished.finished.sequence.error.metadata["position"] == "4"


def test_scores_that_do_not_fit_one_message_are_sent_in_several():
    messages = write(event(0, [1, 2, 3], num_bytes=400))
    assert len(messages) == 2
    assert [list(m.deltas.deltas[0].token_ids) for m in messages] == [[1, 2], [3]]


def test_a_row_larger_than_a_message_follows_in_chunks():
    announcing, *chunks = write(event(0, [1], num_bytes=2500))
    tensor_id = announcing.deltas.deltas[0].scores[0].logits.tensor_id
    assert tensor_id > 0
    assert [(c.chunk.offset, len(c.chunk.data)) for c in chunks] == [
        (0, 1000),
        (1000, 1000),
        (2000, 500),
    ]
    assert {(c.chunk.tensor_id, c.chunk.total_bytes) for c in chunks} == {(tensor_id, 2500)}


def test_a_row_that_follows_says_its_type():
    row = PositionScores(position=1, token_id=1, logits=bytes(2500), dtype="bfloat16")
    announcing, *_ = write(SequenceTokens(7, 0, [1], scores=[row]))
    logits = announcing.deltas.deltas[0].scores[0].logits
    assert logits.dtype == tensor_pb2.DATA_TYPE_BFLOAT16


def test_every_large_row_has_an_id_of_its_own():
    messages = write(event(0, [1, 2], num_bytes=1500))
    assert {m.chunk.tensor_id for m in messages if m.HasField("chunk")} == {1, 2}


def read_back(messages) -> dict[tuple[int, int], list[tuple[int, bytes]]]:
    """Puts a stream together as a client does."""
    tokens, tensors = {}, {}
    for message in messages:
        for delta in message.deltas.deltas:
            row = tokens.setdefault((delta.prompt_index, delta.sequence_index), [])
            scores = list(delta.scores) or [None] * len(delta.token_ids)
            row += zip(delta.token_ids, scores, strict=True)
        if message.HasField("chunk"):
            chunk = message.chunk
            data = tensors.setdefault(chunk.tensor_id, b"")
            assert chunk.offset == len(data)
            tensors[chunk.tensor_id] = data + chunk.data
    return {
        key: [
            (
                token_id,
                b""
                if scores is None
                else scores.logits.tensor.data or tensors.get(scores.logits.tensor_id, b""),
            )
            for token_id, scores in row
        ]
        for key, row in tokens.items()
    }


rows = st.lists(
    st.tuples(st.lists(st.integers(0, 200), min_size=1, max_size=6), st.integers(0, 2600)),
    min_size=1,
    max_size=8,
)


@given(rows)
def test_a_stream_loses_nothing_and_stays_below_its_limit(rows):
    messages = write(*(event(row, ids, size) for row, (ids, size) in enumerate(rows)))
    expected = {
        divmod(row, 2): [(i, bytes([i % 251]) * size) for i in ids]
        for row, (ids, size) in enumerate(rows)
    }
    assert read_back(messages) == expected
    assert all(len(m.chunk.data) <= LIMIT for m in messages)
    payload = [
        sum(len(s.logits.tensor.data) for d in m.deltas.deltas for s in d.scores) for m in messages
    ]
    assert max(payload) <= LIMIT


@pytest.mark.parametrize("size", [0, 100])
def test_prompt_scores_come_with_the_first_token(size):
    first = event(0, [5])
    first.prompt_scores = [position(1, size), position(2, size)]
    (message,) = write(first)
    (delta,) = message.deltas.deltas
    assert [scores.position for scores in delta.prompt_scores] == [1, 2]
    assert list(delta.token_ids) == [5]
