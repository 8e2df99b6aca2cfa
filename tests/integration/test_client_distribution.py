"""The distribution before and after every processor, with transformers in fp32 as the reference."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation import logits_process as hf

from lockstep_client import AsyncLockstep, Lockstep, exceptions
from tests.services import Services, running_services

PROMPTS = [[40, 50, 60, 40, 50], [200, 210, 200]]
LIFTED, GIVEN = 7, [5, 40, 300]
KEYWORDS = {
    "repetition_penalty": 1.7,
    "logit_bias": {LIFTED: 60.0},
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.9,
}


def theirs() -> dict[str, hf.LogitsProcessor]:
    bias = hf.SequenceBiasLogitsProcessor([[[LIFTED], 60.0]])
    return {
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor(1.7),
        "logit_bias": bias,
        "temperature": hf.TemperatureLogitsWarper(0.6),
        "top_k": hf.TopKLogitsWarper(20),
        "top_p": hf.TopPLogitsWarper(0.9),
    }


@pytest.fixture(scope="module")
def model(services: Services):
    return AutoModelForCausalLM.from_pretrained(services.checkpoint, dtype=torch.float32).eval()


@pytest.fixture
def ls(services: Services):
    with services.client() as client:
        yield client


def expected(model, prompt: list[int]) -> torch.Tensor:
    """`[S, V]` logits, and the scores after each processor."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        stages = [model(ids).logits[:, -1]]
    for processor in theirs().values():
        stages.append(processor(ids, stages[-1].clone()))
    return torch.cat(stages)


def test_every_stage_has_the_scores_and_probabilities_of_transformers(ls: Lockstep, model):
    found = ls.model.distribution(PROMPTS, candidates=8, **KEYWORDS)
    assert len(found) == len(PROMPTS)
    for prompt, distribution in zip(PROMPTS, found, strict=True):
        rows = expected(model, prompt)
        shown = torch.tensor(distribution.token_ids)
        assert distribution.stages == ["model", *theirs()]
        assert distribution.position == len(prompt)
        np.testing.assert_allclose(distribution.scores, rows[:, shown], rtol=1e-4, atol=1e-4)
        probabilities = rows.double().softmax(-1)[:, shown]
        np.testing.assert_allclose(distribution.probabilities, probabilities, atol=1e-5)
        np.testing.assert_allclose(distribution.logsumexp, rows.double().logsumexp(-1), atol=1e-4)


def test_what_the_model_prefers_is_shown_and_then_what_processors_bring_up(ls: Lockstep, model):
    (found,) = ls.model.distribution(PROMPTS[:1], candidates=4, **KEYWORDS)
    rows = expected(model, PROMPTS[0])
    assert found.token_ids[:4] == rows[0].topk(4).indices.tolist()
    best = rows[-1].topk(4)
    after = [i for i, score in zip(best.indices.tolist(), best.values, strict=True) if score > -1e9]
    assert found.token_ids[4:] == [i for i in after if i not in found.token_ids[:4]]
    assert LIFTED in found.token_ids[4:]


def test_the_ids_asked_for_are_shown_in_their_order(ls: Lockstep, model):
    (found,) = ls.model.distribution(PROMPTS[:1], candidates=GIVEN, **KEYWORDS)
    assert found.token_ids == GIVEN
    assert np.isneginf(found.scores[-1]).any()
    assert not found.probabilities[-1][np.isneginf(found.scores[-1])].any()


def test_without_keywords_it_is_what_generate_would_choose_from(ls: Lockstep):
    (found,) = ls.model.distribution(PROMPTS[:1])
    generated = ls.model.generate(PROMPTS[:1], max_new_tokens=1, do_sample=False)
    assert found.stages == ["model", *generated.applied_processors]
    assert found.token_ids[found.scores[-1].argmax()] == generated.sequences[0][0]


def test_the_keywords_of_a_generation_can_stay(ls: Lockstep):
    options = {"max_new_tokens": 4, "stop_token_ids": [5], "seed": 3, **KEYWORDS}
    (found,) = ls.model.distribution(PROMPTS[:1], **options)
    assert found.stages == ["model", *theirs()]


def test_a_text_has_its_tokens_by_name(ls: Lockstep):
    found = ls.distribution("The capital of", candidates=3, do_sample=True, top_k=2)
    head, *lines, others = str(found).splitlines()
    assert head.split() == ["token", "id", "model", "top_k"]
    entries = ls.tokenizer.convert_tokens(ids=found.token_ids).entries
    assert [line.split()[:2] for line in lines] == [[e.visible, str(e.id)] for e in entries]
    assert others.split()[0] == "others"
    assert others.split()[-1] == "-"
    chat = [{"role": "user", "content": "Hi"}]
    asked = ls.tokenizer.apply_chat_template(chat).token_ids[0]
    assert ls.distribution(messages=chat).position == len(asked)


async def test_the_asyncio_client_shows_the_same(services: Services, ls: Lockstep):
    addresses = services.tokenizer.address, services.model.address
    async with AsyncLockstep(*addresses) as client:
        found = await client.distribution("The capital of", **KEYWORDS)
    expected = ls.distribution("The capital of", **KEYWORDS)
    assert (found.token_ids, found.texts) == (expected.token_ids, expected.texts)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


def test_ids_that_must_not_be_generated_have_a_stage_where_nothing_else_leaves_them_out(
    services: Services, tmp_path
):
    with running_services(services.checkpoint, tmp_path) as own, own.client() as client:
        new = client.vocabulary.add_tokens(["<never>"], special=True).ids
        (found,) = client.model.distribution(PROMPTS[:1], candidates=new)
        assert found.stages == ["model", "not generable"]
        assert found.probabilities[0][0] > 0
        assert found.probabilities[1][0] == 0


def test_what_is_no_number_of_tokens_is_refused(ls: Lockstep):
    with pytest.raises(exceptions.WrongValue, match="candidates is at least 1, not 0"):
        ls.model.distribution(PROMPTS, candidates=0)
    with pytest.raises(TypeError, match="output_logits"):
        ls.model.distribution(PROMPTS, output_logits=True)
