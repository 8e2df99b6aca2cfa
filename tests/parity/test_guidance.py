"""Guidance against `generate(guidance_scale=..., negative_prompt_ids=...)`, float32."""

import pytest
import torch

from model_service.protocol.generation import ScoreSelection
from tests.engine_harness import array, scores_of, tokens_of

from .conftest import Pair
from .test_engine import assert_close, logits_of, make_prompts

NEW = 10
FULL = ScoreSelection(logits=True, scores=True, amount="full")
PROMPTS = make_prompts(4)
NEGATIVES = (None, (7, 300, 12), tuple(range(20, 55)))  # shorter and longer than most prompts


def expected_of(pair: Pair, prompt, scale, negative, **options):
    if negative is not None:
        options["negative_prompt_ids"] = torch.tensor([negative])
    return pair.generate(prompt, NEW, guidance_scale=scale, **options)


def scores_tensor(events, request_id, row=0):
    positions = scores_of(events, request_id, row)
    return torch.stack([torch.from_numpy(array(position.scores)) for position in positions])


@pytest.mark.parametrize("negative", NEGATIVES, ids=["last token", "short", "long"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_tokens_and_scores_equal_generate(pair: Pair, scale, negative):
    """All prompts in one call, so that rows are prefilled in different steps and share others."""
    request_id = pair.engine.submit(
        PROMPTS, selection=FULL, max_new_tokens=NEW, guidance_scale=scale, negative_prompt=negative
    )
    events = pair.engine.drain()
    got = tokens_of(events, request_id, len(PROMPTS))
    for row in (1, 3, 5):
        expected = expected_of(pair, PROMPTS[row], scale, negative)
        assert got[row] == expected.token_ids
        assert_close(logits_of(events, request_id, row), expected.logits)
        assert_close(scores_tensor(events, request_id, row), expected.scores)


def test_guidance_changes_the_tokens(pair: Pair):
    plain = pair.engine.generate(PROMPTS, max_new_tokens=NEW)
    guided = pair.engine.generate(PROMPTS, max_new_tokens=NEW, guidance_scale=4.0)
    assert sum(a != b for a, b in zip(plain, guided, strict=True)) > len(PROMPTS) // 2


def test_a_scale_of_one_is_off(pair: Pair):
    plain = pair.engine.generate(PROMPTS, max_new_tokens=NEW)
    assert pair.engine.generate(PROMPTS, max_new_tokens=NEW, guidance_scale=1.0) == plain


def test_processors_see_guided_scores_as_in_generate(pair: Pair):
    options = {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2}
    suppressed = [3, 4, 5]
    for prompt in PROMPTS[2:5]:
        expected = expected_of(
            pair, prompt, 2.5, (9, 8, 7, 6), suppress_tokens=suppressed, **options
        )
        request_id = pair.engine.submit(
            [prompt],
            selection=FULL,
            max_new_tokens=NEW,
            guidance_scale=2.5,
            negative_prompt=(9, 8, 7, 6),
            suppress_tokens=tuple(suppressed),
            **options,
        )
        events = pair.engine.drain()
        assert tokens_of(events, request_id, 1) == [expected.token_ids]
        got, scores = scores_tensor(events, request_id), expected.scores
        excluded = scores == -torch.inf
        assert torch.equal(got == -torch.inf, excluded)
        assert_close(got[~excluded], scores[~excluded])


def test_guided_requests_that_join_a_running_batch_in_chunks_equal_generate(pair: Pair):
    engine = pair.engine
    engine.engine._scheduler._clock._budget_s = 0.0  # the smallest chunks: rows come apart
    events, ids = [], []
    for prompt in PROMPTS:
        engine.submit([prompt[::-1]], max_new_tokens=20)
        ids.append(
            engine.submit(
                [prompt], max_new_tokens=NEW, guidance_scale=3.0, negative_prompt=NEGATIVES[2]
            )
        )
        events += engine.step() or []
    events += engine.drain()
    for prompt, request_id in list(zip(PROMPTS, ids, strict=True))[::3]:
        expected = expected_of(pair, prompt, 3.0, NEGATIVES[2])
        assert tokens_of(events, request_id, 1) == [expected.token_ids]


def test_draws_are_from_guided_scores(pair_of):
    """The draw of a guided row is that of an unguided one with the same scores."""
    pair = pair_of("llama")
    prompt = PROMPTS[2]
    request_id = pair.engine.submit(
        [prompt] * 4,
        seeds=[1, 2, 3, 4],
        selection=FULL,
        max_new_tokens=NEW,
        do_sample=True,
        top_k=5,
        guidance_scale=2.0,
        negative_prompt=(7, 8),
    )
    events = pair.engine.drain()
    rows = tokens_of(events, request_id, 4)
    assert len({tuple(row) for row in rows}) > 1
    for row, tokens in enumerate(rows):
        scores = scores_tensor(events, request_id, row)
        assert all(scores[t, token] > -torch.inf for t, token in enumerate(tokens))
        assert ((scores > -torch.inf).sum(-1) == 5).all()
