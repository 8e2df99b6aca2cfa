"""What a request may ask about a distribution."""

import pytest
from lockstep.v1 import scores_pb2, tensor_pb2

from model_service.front.checks.selection import num_positions, position_bytes, read_selection
from model_service.protocol.generation import (
    PositionScores,
    ProcessorTrace,
    ScoreSelection,
    TokenScore,
)
from rpc.errors import InvalidField, TokenIdOutOfRange
from wire.violations import Violations

Message = scores_pb2.ScoreSelection
ALL, LAST, NEW, LIST = (
    scores_pb2.SCORE_POSITIONS_ALL,
    scores_pb2.SCORE_POSITIONS_LAST,
    scores_pb2.SCORE_POSITIONS_NEW,
    scores_pb2.SCORE_POSITIONS_LIST,
)


def read(message: Message, use="given") -> ScoreSelection:
    violations = Violations()
    selection = read_selection(
        message,
        "scores",
        violations,
        use=use,
        vocabulary_size=100,
        max_selected_tokens=10,
        given_tokens=4,
    )
    violations.check()
    return selection


def violated(message: Message, use="given") -> list[str]:
    with pytest.raises(InvalidField) as caught:
        read(message, use)
    return [violation.field for violation in caught.value.violations]


def test_full_rows_are_float32_unless_asked():
    assert read(Message(logits=True, full=True)).dtype == "float32"
    message = Message(logits=True, full=True, dtype=tensor_pb2.DATA_TYPE_BFLOAT16)
    assert read(message).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("use", "positions"), [("new", "new"), ("prompt", "all"), ("given", "last")]
)
def test_unset_positions_mean_what_the_method_says(use, positions):
    assert read(Message(logits=True), use).positions == positions


@pytest.mark.parametrize(
    ("use", "positions"), [("new", LAST), ("new", ALL), ("prompt", LAST), ("given", NEW)]
)
def test_positions_that_make_no_sense_are_refused(use, positions):
    assert violated(Message(logits=True, positions=positions), use) == ["scores.positions"]


def test_an_unknown_position_kind_is_refused():
    assert violated(Message(logits=True, positions=99)) == ["scores.positions"]


@pytest.mark.parametrize("top_k", [0, -1, 11])
def test_top_k_out_of_range_is_refused(top_k):
    assert violated(Message(logits=True, top_k=top_k)) == ["scores.top_k"]


def test_top_k_at_the_limit_is_allowed():
    assert read(Message(logits=True, top_k=10)).top_k == 10


def test_an_amount_of_nothing_is_refused():
    assert violated(Message(full=True)) == ["scores"]


def test_full_set_to_false_is_refused():
    assert violated(Message(logits=True, full=False)) == ["scores.full"]


def test_integer_rows_are_refused():
    message = Message(logits=True, full=True, dtype=tensor_pb2.DATA_TYPE_INT64)
    assert violated(message) == ["scores.dtype"]


@pytest.mark.parametrize("ids", [[], [1, 1], list(range(11))], ids=["none", "repeated", "many"])
def test_lists_of_ids_are_checked(ids):
    assert violated(Message(logits=True, token_ids={"ids": ids})) == ["scores.token_ids"]


def test_an_id_outside_of_the_vocabulary_is_named():
    with pytest.raises(TokenIdOutOfRange) as caught:
        read(Message(logits=True, token_ids={"ids": [5, 100]}))
    assert caught.value.metadata["index"] == "1"


@pytest.mark.parametrize("positions", [[], [4], [-1], [1, 1]])
def test_lists_of_positions_are_checked(positions):
    message = Message(logits=True, positions=LIST, position_list=positions)
    assert violated(message) == ["scores.position_list"]


def test_positions_are_reported_in_order():
    message = Message(logits=True, positions=LIST, position_list=[3, 0])
    assert read(message).position_list == (0, 3)


def test_a_list_of_positions_without_its_kind_is_refused():
    assert violated(Message(logits=True, position_list=[0])) == ["scores.position_list"]


@pytest.mark.parametrize(("positions", "count"), [("last", 1), ("new", 1), ("all", 7), ("list", 2)])
def test_positions_are_counted(positions, count):
    selection = ScoreSelection(logits=True, positions=positions, position_list=(1, 2))
    assert num_positions(selection, 7) == count


@pytest.mark.parametrize(
    "selection",
    [
        ScoreSelection(logits=True, scores=True, amount="full"),
        ScoreSelection(logits=True, amount="full", dtype="float16"),
        ScoreSelection(logits=True, scores=True, amount="top_k", top_k=10),
        ScoreSelection(scores=True, amount="token_ids", token_ids=tuple(range(10))),
        ScoreSelection(rank=True, entropy=True, logsumexp=True),
        ScoreSelection(processor_trace=True),
        ScoreSelection(
            logits=True,
            scores=True,
            amount="top_k",
            top_k=5,
            top_k_of_both=True,
            logsumexp=True,
            processor_trace=True,
        ),
    ],
)
def test_no_position_is_larger_than_was_computed_before(selection):
    from model_service.front.rpcs.results import position_scores

    row = bytes(100 * (2 if selection.dtype == "float16" else 4))
    full = selection.amount == "full"
    count = 0 if full or selection.amount == "none" else 10
    names = ["temperature", "exponential_decay_length_penalty"] * selection.processor_trace
    scores = PositionScores(
        position=2**31 - 1,
        token_id=2**31 - 1,
        logits=row if full and selection.logits else None,
        scores=row if full and selection.scores else None,
        dtype=selection.dtype,
        tokens=[TokenScore(2**31 - 1, 1.0, 1.0)] * count,
        logits_logsumexp=1.0,
        scores_logsumexp=1.0,
        entropy=1.0,
        rank=2**31 - 1,
        logits_logprob=-1.0,
        scores_logprob=-1.0,
        processor_trace=[ProcessorTrace(name, -1.0, -1.0, [-1.0] * count) for name in names],
    )
    message = position_scores(scores)
    assert message.ByteSize() + 8 <= position_bytes(selection, 100, names)


@pytest.mark.parametrize(
    "wanted",
    [{"logits": True, "top_k": 2}, {"scores": True, "top_k": 2}, {"logits": True, "scores": True}],
)
def test_the_best_of_both_need_both_and_a_number(wanted):
    assert violated(Message(top_k_of_both=True, **wanted)) == ["scores.top_k_of_both"]
    assert read(Message(top_k_of_both=True, logits=True, scores=True, top_k=2)).top_k_of_both
