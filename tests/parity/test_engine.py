"""Greedy tokens and logits against `model.generate`, float32, seven architectures.

The checkpoints' weights are large (see `checkpoint_factory`), so their logits
are about ten times those of a fresh model: the bound of 1e-5 is relative to the
largest logit, and absolute for a model with Hugging Face's own initialization.
"""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from model_service.protocol import (
    Cancel,
    CloseSession,
    OpenSession,
    SequenceSpec,
    StepRow,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.checkpoint_factory import ARCHITECTURES, VOCABULARY_SIZE
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of

from .conftest import Pair

LENGTHS = (1, 3, 17, 40, 23, 5, 30, 12, 9, 11)  # both sides of the sliding window
NEW = 12
TOLERANCE = 1e-5

FULL = ScoreSelection(logits=True, scores=True, amount="full")


def make_prompts(seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in LENGTHS]


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= TOLERANCE * scale


def logits_of(events, request_id: int, row: int = 0) -> torch.Tensor:
    scores = scores_of(events, request_id, row)
    return torch.stack([torch.from_numpy(array(position.logits)) for position in scores])


def test_tokens_alone_equal_generate(pair: Pair):
    for prompt in make_prompts():
        expected = pair.generate(prompt, NEW).token_ids
        assert pair.engine.generate([prompt], max_new_tokens=NEW) == [expected]


def test_the_prompts_are_not_trivial(pair: Pair):
    continuations = {tuple(pair.generate(prompt, NEW).token_ids) for prompt in make_prompts()}
    assert len(continuations) == len(LENGTHS)


def test_tokens_in_one_ragged_batch_equal_generate(pair: Pair):
    prompts = make_prompts()
    expected = [pair.generate(prompt, NEW).token_ids for prompt in prompts]
    assert pair.engine.generate(prompts, max_new_tokens=NEW) == expected


def test_tokens_and_logits_of_requests_that_join_a_running_batch_equal_generate(pair: Pair):
    """Prompts arrive one by one, in chunks of 16 tokens, and neighbors are cancelled."""
    engine = pair.engine
    engine.engine._scheduler._clock._budget_s = 0.0  # the smallest chunks
    prompts, events, ids, strangers = make_prompts(1), [], [], []
    for prompt in prompts:
        strangers.append(engine.submit([prompt[::-1]], max_new_tokens=50))
        ids.append(engine.submit([prompt], selection=FULL, max_new_tokens=NEW))
        for _ in range(3):
            events += engine.step() or []
        engine.handle(Cancel(strangers[-1]))
    events += engine.drain()
    for prompt, request_id in zip(prompts, ids, strict=True):
        expected = pair.generate(prompt, NEW)
        assert tokens_of(events, request_id, 1) == [expected.token_ids]
        assert_close(logits_of(events, request_id), expected.logits)


def test_scores_equal_those_of_generate_with_every_option(pair: Pair):
    prompt = make_prompts()[2]
    options = {"repetition_penalty": 1.3, "min_new_tokens": NEW}
    expected = pair.generate(prompt, NEW, eos_token_id=[5, 6], **options)
    request_id = pair.engine.submit(
        [prompt], selection=FULL, max_new_tokens=NEW, eos_token_ids=(5, 6), **options
    )
    events = pair.engine.drain()
    got = torch.stack([torch.from_numpy(array(p.scores)) for p in scores_of(events, request_id)])
    excluded = expected.scores == -torch.inf
    assert torch.equal(got == -torch.inf, excluded)
    assert_close(got[~excluded], expected.scores[~excluded])


def test_prompt_scores_equal_a_full_forward_pass(pair: Pair):
    prompt = make_prompts()[3]
    everything = ScoreSelection(logits=True, amount="full", positions="all")
    request_id = pair.engine.submit([prompt], prompt_selection=everything, max_new_tokens=1)
    (event,) = pair.engine.drain()
    assert event.request_id == request_id
    with torch.inference_mode():
        expected = pair.model(torch.tensor([prompt])).logits[0, :-1]
    got = torch.stack([torch.from_numpy(array(p.logits)) for p in event.prompt_scores])
    assert_close(got, expected)


def test_steps_of_a_session_equal_one_full_forward_pass(pair: Pair):
    engine, prompts = pair.engine, make_prompts(2)[2:5]
    engine.handle(
        OpenSession(
            request_id=900,
            session_id="parity",
            sequences=[SequenceSpec(prompt[:5], 0) for prompt in prompts],
            config=engine.config(),
            revision=0,
            max_length=60,
            selection=ScoreSelection(logits=True, amount="full"),
        )
    )
    engine.drain()
    answers: list[list[torch.Tensor]] = [[] for _ in prompts]
    for index in range(5, 17):
        # Rows move at different speed: every third step leaves a row out.
        rows = [
            StepRow([] if (index + row) % 3 == 0 else [prompt[index]], None)
            for row, prompt in enumerate(prompts)
        ]
        selection = ScoreSelection(logits=True, amount="full")
        engine.handle(StepSession("parity", rows, selection, request_id=901))
        (answer,) = engine.drain()
        for row, result in enumerate(answer.rows):
            answers[row] += [torch.from_numpy(array(p.logits)) for p in result.scores]
    engine.handle(CloseSession("parity", request_id=902))
    engine.drain()
    for row, prompt in enumerate(prompts):
        kept = [prompt[i] for i in range(5, 17) if (i + row) % 3 != 0]
        with torch.inference_mode():
            expected = pair.model(torch.tensor([prompt[:5] + kept])).logits[0, 5:]
        assert_close(torch.stack(answers[row]), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_a_fresh_model_are_within_1e_minus_5(architecture, tmp_path):
    config = ARCHITECTURES[architecture]()
    config.initializer_range = 0.02  # Hugging Face's own
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    engine = InprocEngine(tmp_path, max_running_sequences=10)
    prompts = make_prompts(3)
    request_id = engine.submit(
        prompts, selection=ScoreSelection(logits=True, amount="full"), max_new_tokens=6
    )
    events = engine.drain()
    for row, prompt in enumerate(prompts):
        token_ids = tokens_of(events, request_id, len(prompts))[row]
        with torch.inference_mode():
            whole = model(torch.tensor([prompt + token_ids[:-1]])).logits[0, len(prompt) - 1 :]
        assert float((logits_of(events, request_id, row) - whole).abs().max()) <= TOLERANCE
