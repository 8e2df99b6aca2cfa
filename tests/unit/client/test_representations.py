"""How values of the client are printed, and drawn in a notebook."""

import datetime

import numpy as np
import pytest
from lockstep.v1 import generation_pb2

from lockstep_client import (
    Batch,
    Completion,
    Distribution,
    Encoding,
    GeneratedSequence,
    Lockstep,
    NextTokenScores,
    Padded,
    PositionScores,
    Revision,
    ScoredSequence,
    Timing,
    TokenDelta,
    TokenScore,
    Usage,
    VocabularyRef,
)
from lockstep_client._results.determinism import Determinism
from lockstep_client._values.one_line import MAX_LENGTH

REF = VocabularyRef("tiny", 3, "ab" * 32, 49152)
HUGE = 10_000
ROW = np.zeros(49152, dtype=np.float32)
SCORES = PositionScores(position=7, token_id=5, logits=ROW, scores=ROW, rank=1)
DISTRIBUTION = Distribution(
    token_ids=[7042, 260],
    stages=["model", "top_k"],
    scores=np.array([[2.0, 1.0], [2.0, -np.inf]], dtype=np.float32),
    logsumexp=np.array([3.0, 2.0]),
    position=5,
    vocabulary=REF,
    texts=["␣Paris", "␣<b>"],
)
DETERMINISM = Determinism.from_message(generation_pb2.Determinism())


def padded(columns: int) -> Padded:
    ids = np.arange(columns)[None]
    return Padded(ids, np.ones_like(ids), ids, "left", 0)


VALUES = [
    REF,
    Batch([[1] * HUGE] * HUGE, REF),
    Batch([[1, 2]], REF, padded(2), [Encoding(token_bytes=[b"x"] * HUGE)], ["text\n" * HUGE]),
    padded(HUGE),
    TokenDelta(0, 0, (5,) * HUGE, (SCORES,) * HUGE),
    GeneratedSequence(0, 0, (5,) * HUGE, "eos_token", 1, (SCORES,) * HUGE),
    SCORES,
    PositionScores(position=1, tokens=(TokenScore(5, 1.0, None),) * HUGE),
    ScoredSequence((SCORES,) * HUGE, -1.0, False),
    DISTRIBUTION,
    NextTokenScores(((SCORES,) * HUGE,) * HUGE, REF, DETERMINISM),
    Revision(REF, "cd" * 32, {i: "<a>\n" * 99 for i in range(HUGE)}, {"pad": 1}, {}, None),
]


def completion(text: str) -> Completion:
    return Completion(
        text=text,
        token_ids=[5, 6],
        prompt_token_ids=[1],
        finish_reason="eos_token",
        seed=7,
        usage=Usage(),
        timing=Timing(total_s=0.25),
        effective_config={},
        vocabulary=REF,
    )


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_printed_on_one_line_of_bounded_length(value):
    shown = repr(value)
    assert shown.startswith(type(value).__name__ + "(")
    assert len(shown) <= MAX_LENGTH
    assert "\n" not in shown


def test_what_is_printed_has_ids_rows_and_types():
    assert repr(SCORES) == (
        "PositionScores(position=7, token_id=5, logits=float32[49152], "
        "scores=float32[49152], rank=1)"
    )
    assert "token_ids=[[1, 2], [3]]" in repr(Batch([[1, 2], [3]]))
    assert "input_ids=int64[1, 3]" in repr(padded(3))
    assert "revision=3" in repr(REF)


def test_a_client_is_printed_with_its_addresses():
    with Lockstep("tokenizer:1", "model:2") as client:
        assert repr(client) == "<Lockstep tokenizer=tokenizer:1 model=model:2>"
        assert repr(client.model) == "<Model at model:2>"
        assert repr(client.tokenizer) == "<Tokenizer at tokenizer:1>"
        assert repr(client.vocabulary) == "<Vocabulary at tokenizer:1>"
        stream = client.model.stream([[5]])
        assert repr(stream) == "<Stream not begun, 0 items read>"


def test_an_answer_as_a_text_is_its_text():
    assert str(completion("Paris")) == f"{completion('Paris')}" == "Paris"
    assert repr(completion("Paris")).startswith("Completion(text='Paris', token_ids=[5, 6], ")


def test_nothing_of_a_caller_is_markup():
    hostile = "<script>&"
    time = datetime.datetime(2026, 1, 2, 3, 4, 5)
    values = [
        completion(hostile),
        Batch([[5]], REF, encodings=[Encoding(token_bytes=[hostile.encode()])]),
        Batch([[5]], REF, encodings=[Encoding(tokens=[hostile])]),
        Revision(REF, "", {9: hostile}, {}, {8: hostile}, time),
    ]
    for value in values:
        drawn = value._repr_html_()
        assert "<script" not in drawn
        assert "&lt;script&gt;&amp;" in drawn


def test_an_encoding_is_drawn_as_pieces_with_ids_and_padding_apart():
    ids = np.array([[0, 5, 6]])
    rectangle = Padded(ids, np.array([[0, 1, 1]]), ids, "left", 0)
    details = [Encoding(token_bytes=[b" a", b"\xf0"])]
    drawn = Batch([[5, 6]], REF, rectangle, details)._repr_html_()
    assert "␣a<br><small>5</small>" in drawn
    assert "\\xf0<br><small>6</small>" in drawn
    assert drawn.count("#e5e7eb") == 1


def test_a_distribution_is_drawn_with_bars_of_its_probabilities():
    top = (TokenScore(5, 2.0, 1.0), TokenScore(6, 1.0, float("-inf")))
    scores = PositionScores(
        position=3, tokens=top, logits_logsumexp=2.0 - np.log(0.75), scores_logsumexp=1.0
    )
    drawn = scores._repr_html_()
    assert "75.0%" in drawn
    assert "100.0%" in drawn
    assert "0.0%" in drawn
    whole = PositionScores(position=3, logits=np.log(np.array([0.1, 0.9], dtype=np.float32)))
    assert whole._repr_html_().index("90.0%") < whole._repr_html_().index("10.0%")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_drawing_is_of_bounded_size(value):
    if hasattr(value, "_repr_html_"):
        assert len(value._repr_html_()) < 1_000_000


def test_a_distribution_is_printed_as_a_table_with_a_column_for_each_stage():
    assert str(DISTRIBUTION).splitlines() == [
        "token     id  model   top_k",
        "␣Paris  7042  36.8%  100.0%",
        "␣<b>     260  13.5%       -",
        "others        49.7%       -",
    ]
    without = str(DISTRIBUTION.with_texts([])).splitlines()
    assert without[1] == "7042    36.8%  100.0%"


def test_a_distribution_is_drawn_with_a_bar_for_each_stage():
    drawn = DISTRIBUTION._repr_html_()
    assert "<th>top_k</th>" in drawn
    assert "&lt;b&gt;" in drawn
    assert drawn.count("background:#3b82f6") == 6


def test_a_stage_that_leaves_no_token_has_no_probabilities():
    empty = Distribution([5], ["model"], np.array([[-np.inf]]), np.array([-np.inf]), 1, REF)
    assert empty.probabilities.tolist() == [[0.0]]
