"""Distributions before and after every processor, and scores in windows, as in Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep_client import Distribution, Lockstep
from tests.integration.node.package import needs_node, probe
from tests.integration.test_client_distribution import GIVEN, KEYWORDS, PROMPTS
from tests.services import Services

TEXT = "Once upon a time there was a model that counted one, two, three. " * 3
OPTIONS = {
    "repetitionPenalty": KEYWORDS["repetition_penalty"],
    "logitBias": KEYWORDS["logit_bias"],
    "doSample": True,
    "temperature": KEYWORDS["temperature"],
    "topK": KEYWORDS["top_k"],
    "topP": KEYWORDS["top_p"],
}

pytestmark = needs_node


@pytest.fixture(scope="module")
def seen(built: Path, services: Services) -> dict[str, Any]:
    given = {"PROMPTS": PROMPTS, "KEYWORDS": OPTIONS, "GIVEN": GIVEN, "TEXT": TEXT}
    return probe("distributions", built, **services.environment, GIVEN=json.dumps(given))


def _equal(given: dict[str, Any], expected: Distribution) -> None:
    assert given["tokenIds"] == expected.token_ids
    assert given["stages"] == expected.stages
    assert given["position"] == expected.position
    scores = [[float(each.replace("I", "i")) for each in row] for row in given["scores"]]
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(given["logsumexp"], expected.logsumexp, atol=1e-4)
    np.testing.assert_allclose(given["probabilities"], expected.probabilities, atol=1e-5)


def test_every_stage_has_the_scores_and_probabilities_of_the_python_client(seen, client: Lockstep):
    calls = {
        "stages": {"candidates": 8, **KEYWORDS},
        "given": {"candidates": GIVEN, **KEYWORDS},
        "unset": {},
    }
    for name, options in calls.items():
        expected = client.model.distribution(PROMPTS, **options)
        for given, distribution in zip(seen[name], expected, strict=True):
            _equal(given, distribution)
    assert seen["given"][0]["probabilities"][-1].count(0) > 0


def test_without_options_it_is_what_generate_would_choose_from(seen):
    for found, (chosen,) in zip(seen["unset"], seen["generated"], strict=True):
        last = [float(each.replace("I", "i")) for each in found["scores"][-1]]
        assert found["tokenIds"][int(np.argmax(last))] == chosen


def test_a_text_has_its_tokens_by_name_in_the_table_of_the_python_client(seen, client: Lockstep):
    expected = client.distribution("The capital of", candidates=3, do_sample=True, top_k=2)
    _equal(seen["text"], expected)
    assert seen["text"]["texts"] == expected.texts
    assert seen["text"]["table"] == str(expected)
    chat = [{"role": "user", "content": "Hi"}]
    assert seen["asked"] == client.distribution(messages=chat).position
    assert seen["guided"]["message"].startswith("guidanceScale: is applied by `generate` only")


def test_the_perplexity_of_a_text_of_any_length_is_that_of_the_python_client(seen, client):
    expected = client.perplexity(TEXT, window=32)
    assert seen["perplexity"] == pytest.approx(expected, rel=1e-5)
    several = client.perplexity([TEXT, TEXT[:20]], window=32, stride=8)
    assert seen["several"] == pytest.approx(several, rel=1e-5)
    assert seen["whole"] == pytest.approx(client.perplexity(TEXT), rel=1e-5)


def test_each_token_is_scored_once_in_windows_and_knows_its_place(seen, client: Lockstep):
    (ids,) = client.tokenizer.encode(TEXT).token_ids
    windows = seen["windows"]
    assert windows["positions"] == list(range(1, len(ids)))
    assert windows["logprob"] == pytest.approx(windows["sum"], abs=1e-3)
    assert windows["perplexity"] == pytest.approx(np.exp(-windows["sum"] / (len(ids) - 1)))
    assert seen["continued"] == [[len(ids) - 40, 40]]


def test_a_row_that_fails_in_windows_has_its_number(seen, client: Lockstep):
    scored, failed = seen["wrong"]
    assert scored == len(client.tokenizer.encode(TEXT).token_ids[0]) - 1
    assert "row 1" in failed


def test_numbers_that_leave_tokens_out_are_refused(seen):
    expected = {
        "candidates": "candidates takes whole numbers from 1 on, or a row of ids, not 0.",
        "ids": "candidates takes whole numbers, not 1.5.",
        "option": "'outputLogits' is not an option of this call.",
        "window": "window is at least 2 and stride at least 1 and below it, not 1 and 0.",
        "stride": "window is at least 2 and stride at least 1 and below it, not 8 and 8.",
        "alone": "stride needs window.",
        "number": "window takes a whole number, not 1.5.",
        "texts": "A text or messages are expected here, not a list of texts; generate takes one.",
    }
    assert {name: failure["message"] for name, failure in seen["refused"].items()} == expected
    assert {failure["name"] for failure in seen["refused"].values()} == {"TypeError"}
