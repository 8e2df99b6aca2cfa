import numpy as np
import pytest
import torch

from model_service.engine.calls.scores import report as describe
from model_service.engine.calls.scores import row_to_array, ship, top_ids
from model_service.protocol import SequenceTokens, SessionAnswer, SessionRowAnswer
from model_service.protocol.generation import PositionScores, ScoreSelection, SharedRow

LOGITS = torch.tensor([1.0, 4.0, 2.0, 4.0, -3.0])
SCORES = torch.tensor([0.5, -torch.inf, 1.0, 2.0, -torch.inf])


def report(token_id=3, **selection):
    wants_scores = selection.get("scores", False)
    return describe(
        ScoreSelection(**selection), 7, token_id, LOGITS, SCORES if wants_scores else None
    )


def test_a_full_row_is_the_logits_in_little_endian_float32():
    assert np.array_equal(
        row_to_array(report(logits=True, amount="full").logits, "float32"), LOGITS
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_row_can_be_had_in_half_the_bytes(dtype):
    position = report(logits=True, amount="full", dtype=dtype)
    assert len(position.logits) == 2 * len(LOGITS)
    assert np.array_equal(row_to_array(position.logits, dtype), LOGITS)  # exact in both


def test_raw_and_processed_rows_can_be_had_at_once():
    position = report(logits=True, scores=True, amount="full")
    assert np.array_equal(row_to_array(position.scores, "float32"), SCORES)
    assert np.array_equal(row_to_array(position.logits, "float32"), LOGITS)


def test_top_k_ranks_by_logit_with_ties_to_the_lowest_id():
    position = report(logits=True, amount="top_k", top_k=3)
    assert [(t.token_id, t.logit) for t in position.tokens] == [(1, 4.0), (3, 4.0), (2, 2.0)]


def test_top_k_ranks_by_score_when_only_scores_are_wanted():
    position = report(scores=True, amount="top_k", top_k=2)
    assert [(t.token_id, t.logit, t.score) for t in position.tokens] == [
        (3, None, 2.0),
        (2, None, 1.0),
    ]


def test_listed_ids_come_in_the_order_asked_for():
    position = report(logits=True, scores=True, amount="token_ids", token_ids=(4, 0))
    assert [t.token_id for t in position.tokens] == [4, 0]
    assert position.tokens[0].score == -np.inf


def test_statistics_are_those_of_the_raw_logits():
    position = report(logits=True, logsumexp=True, entropy=True, rank=True)
    probs = LOGITS.double().softmax(-1).numpy()
    assert np.isclose(position.logits_logsumexp, np.log(np.exp(LOGITS.double().numpy()).sum()))
    assert np.isclose(position.entropy, -(probs * np.log(probs)).sum())
    assert position.rank == 2  # id 1 has the same logit and a lower id
    assert np.isclose(position.logits_logprob, np.log(probs[3]))


def test_a_logit_minus_logsumexp_is_an_exact_log_probability():
    position = report(logits=True, amount="top_k", top_k=1, logsumexp=True)
    assert np.isclose(
        position.tokens[0].logit - position.logits_logsumexp, LOGITS.log_softmax(-1)[1]
    )


def test_the_entropy_of_a_certain_distribution_is_zero():
    logits = torch.full((4,), -torch.inf)
    logits[2] = 0.0
    position = describe(ScoreSelection(entropy=True), 0, None, logits, None)
    assert position.entropy == 0.0


def test_nothing_is_computed_that_was_not_asked_for():
    position = report(token_id=None)
    assert position == type(position)(position=7)


def test_more_ids_than_there_are_means_all():
    assert top_ids(LOGITS, 100).tolist() == [1, 3, 2, 0, 4]


def test_rows_are_put_where_they_belong_in_the_order_of_the_event():
    put = []

    def take(row: memoryview) -> SharedRow:
        put.append(bytes(row))
        return SharedRow(start=len(put), size=row.nbytes)

    event = SequenceTokens(
        1,
        0,
        [5],
        scores=[PositionScores(2, logits=b"b", scores=b"c")],
        prompt_scores=[PositionScores(1, logits=b"a"), PositionScores(1)],
    )
    ship(event, take)
    assert put == [b"a", b"b", b"c"]
    assert event.scores[0].scores == SharedRow(3, 1)
    assert event.prompt_scores[1] == PositionScores(1)
    answer = SessionAnswer(2, [SessionRowAnswer(3, [PositionScores(3, logits=b"d")])], 0)
    ship(answer, take)
    assert answer.rows[0].scores[0].logits == SharedRow(4, 1)
