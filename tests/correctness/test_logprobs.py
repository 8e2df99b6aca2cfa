"""Log-probabilities that are returned: they sum up to 1, and the chosen token always has one."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from model_service.engine.calls.scores import report
from model_service.protocol.generation import ScoreSelection
from tests.correctness.rows import kinds, random_logits, sequence, warper_configs
from tests.correctness.sizes import for_examples, sizes
from tests.engine_harness import array, scores_of, tokens_of
from tests.sequence_factory import scores as scores_by_reference

SIZE = 3000
FULL = ScoreSelection(logits=True, scores=True, amount="full", logsumexp=True)


@st.composite
def cases(draw):
    logits = random_logits(
        draw(st.integers(0, 2**32)), SIZE, draw(st.sampled_from([0.5, 3.0, 20.0])), draw(kinds)
    )
    return logits[0], draw(warper_configs(SIZE))


@sizes("examples", 100, 5_000)
def test_probabilities_of_a_row_sum_up_to_one(examples):
    def check(case):
        logits, config = case
        scores = scores_by_reference(sequence(SIZE, **config), logits)
        if not scores.max().isfinite():
            return
        got = report(FULL, 3, int(scores.argmax()), logits, scores)
        for row, total in (
            (got.logits, got.logits_logsumexp),
            (got.scores, got.scores_logsumexp),
        ):
            assert np.exp(array(row).astype(np.float64) - total).sum() == pytest.approx(1, abs=1e-5)

    for_examples(examples, cases(), check)


@pytest.mark.parametrize("amount", ["none", "top_k"])
def test_the_chosen_token_has_log_probabilities_also_when_it_is_not_among_the_highest(
    pair_of, amount
):
    """Before warpers and after them, and equal to those of the full rows."""
    engine = pair_of("llama").engine
    config = {"do_sample": True, "top_k": 0, "temperature": 3.0, "max_new_tokens": 20}
    selection = ScoreSelection(logits=True, scores=True, amount=amount, top_k=2)
    arguments = {"seeds": [3], **config}
    request_id = engine.submit([[5, 6, 7]], selection=selection, **arguments)
    events = engine.drain()
    (tokens,) = tokens_of(events, request_id, 1)
    positions = scores_of(events, request_id)
    full_id = engine.submit([[5, 6, 7]], selection=FULL, **arguments)
    full = scores_of(engine.drain(), full_id)
    outside = 0
    for token_id, got, whole in zip(tokens, positions, full, strict=True):
        outside += token_id not in {entry.token_id for entry in got.tokens}
        for value, row in ((got.logits_logprob, whole.logits), (got.scores_logprob, whole.scores)):
            exact = torch.from_numpy(array(row)).double().log_softmax(-1)[token_id]
            assert value == pytest.approx(float(exact), abs=1e-5)
    assert outside > 5
