"""Drafts and results: greedy against `generate`, sampled against the same request without.

Random models hardly ever repeat themselves, so drafts come from someone who
knows what `generate` gives, and is wrong now and then.
"""

import random

import pytest
import torch

from model_service.engine.sequences.prompt_lookup import PromptLookup
from model_service.protocol.generation import ScoreSelection
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array, scores_of, tokens_of

from .conftest import Pair

LENGTHS = (1, 3, 17, 40)  # both sides of the sliding window
NEW = 24
FULL = ScoreSelection(logits=True, scores=True, amount="full")
SAMPLING = {"do_sample": True, "temperature": 1.2, "top_k": 20, "top_p": 0.9}
PENALTIES = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "frequency_penalty": 0.5}


def make_prompts() -> list[list[int]]:
    generator = random.Random(4)
    return [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in LENGTHS]


class Informant:
    """Proposes the continuations of prompts, with a mistake in every fifth place or so."""

    def __init__(self, prompts: list[list[int]], continuations: list[list[int]]) -> None:
        self._known = [[*p, *c] for p, c in zip(prompts, continuations, strict=True)]
        self._generator = random.Random(9)
        self.num_proposed = 0

    def propose(self, token_ids: list[int], _longest: int, count: int) -> tuple[int, ...]:
        (known,) = [ids for ids in self._known if ids[: len(token_ids)] == token_ids]
        ahead = known[len(token_ids) : len(token_ids) + count]
        self.num_proposed += len(ahead)
        return tuple(
            self._generator.randrange(VOCABULARY_SIZE) if self._generator.random() < 0.2 else token
            for token in ahead
        )


@pytest.fixture
def informed(monkeypatch):
    """Makes drafts come from an informant."""

    def inform(prompts: list[list[int]], continuations: list[list[int]]) -> Informant:
        informant = Informant(prompts, continuations)
        monkeypatch.setattr(PromptLookup, "propose", lambda _, *given: informant.propose(*given))
        return informant

    return inform


def run(pair: Pair, prompts: list[list[int]], **options: object):
    """Runs prompts one call each, and returns events, ids of calls and accepted drafts."""
    ids = [pair.engine.submit([p], max_new_tokens=NEW, selection=FULL, **options) for p in prompts]
    events, accepted = [], 0
    while (report := pair.engine.engine.step()) is not None:
        events += report.events
        accepted += report.stats.accepted if report.stats else 0
    return events, ids, accepted


def test_greedy_tokens_and_logits_equal_generate(pair: Pair, informed):
    prompts = make_prompts()
    expected = [pair.generate(prompt, NEW) for prompt in prompts]
    informed(prompts, [e.token_ids for e in expected])
    for some in ([0], [1, 2, 3]):  # alone, and in one batch
        events, ids, accepted = run(pair, [prompts[i] for i in some], prompt_lookup_num_tokens=5)
        assert accepted > NEW // 3
        for index, request_id in zip(some, ids, strict=True):
            assert tokens_of(events, request_id, 1) == [expected[index].token_ids]
            assert_close(logits_of(events, request_id), expected[index].logits)


@pytest.mark.parametrize("options", [SAMPLING, PENALTIES, SAMPLING | PENALTIES])
def test_tokens_and_scores_equal_those_without_drafts(pair: Pair, informed, options):
    prompts = make_prompts()
    plain, plain_ids, _ = run(pair, prompts, **options)
    expected = [tokens_of(plain, request_id, 1)[0] for request_id in plain_ids]
    informed(prompts, expected)
    events, ids, accepted = run(pair, prompts, prompt_lookup_num_tokens=5, **options)
    assert accepted > NEW // 3
    assert [tokens_of(events, request_id, 1)[0] for request_id in ids] == expected
    for request_id, plain_id in zip(ids, plain_ids, strict=True):
        assert_close(logits_of(events, request_id), logits_of(plain, plain_id))


def test_real_drafts_equal_generate(pair: Pair):
    """Few words, so that the sequence's own drafts are right at times."""
    words = tuple(range(5, 9))
    options = {"allowed_token_ids": words, "prompt_lookup_num_tokens": 8}
    suppressed = [i for i in range(VOCABULARY_SIZE) if i not in words]
    prompts = [[5, 6, 7, 8, 5, 6], [8, 8, 7]]
    events, ids, accepted = run(pair, prompts, **options)
    assert accepted > 0
    for prompt, request_id in zip(prompts, ids, strict=True):
        expected = pair.generate(prompt, NEW, suppress_tokens=suppressed).token_ids
        assert tokens_of(events, request_id, 1) == [expected]


def logits_of(events, request_id: int) -> torch.Tensor:
    scores = scores_of(events, request_id)
    return torch.stack([torch.from_numpy(array(position.logits)) for position in scores])


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= 1e-5 * scale
