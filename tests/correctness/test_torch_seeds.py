"""Seed mode `torch` against `torch.manual_seed(seed); model.generate(do_sample=True)`."""

import pytest
import torch

from model_service.protocol import OpenSession, SequenceSpec, StepRow, StepSession, TruncateSession
from model_service.protocol.generation import ScoreSelection
from tests.correctness.sizes import sizes
from tests.parity.test_processors import their_options

PROMPTS = [[17, 42, 17, 99, 42, 17, 5, 230, 17, 42], [17], [3, 4, 5, 6, 7]]
NEW = 12

CONFIGS = [
    {},
    {"top_k": 0},
    {"top_k": 0, "top_p": 0.9, "temperature": 1.3},
    {"top_k": 20, "min_p": 0.02, "repetition_penalty": 1.2},
    {"top_k": 0, "typical_p": 0.8, "no_repeat_ngram_size": 2},
    {"top_k": 0, "eta_cutoff": 0.001, "renormalize_logits": True},
    {"top_k": 0, "top_h": 0.7, "suppress_tokens": (3, 9, 200)},
]


def theirs(pair, prompt: list[int], seed: int, config: dict) -> list[int]:
    torch.manual_seed(seed)
    options = their_options({"do_sample": True, "top_k": 50, **config})
    return pair.generate(prompt, NEW, **options).token_ids


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(config) or "defaults")
@sizes("count", 4, 200)
def test_sequences_equal_those_of_generate_alone(pair_of, config, count):
    """All rows run at once, in one batch."""
    pair = pair_of("llama")
    rows = [(prompt, 97 * seed + 2**31 * (seed % 3)) for seed in range(count) for prompt in PROMPTS]
    expected = [theirs(pair, prompt, seed, config) for prompt, seed in rows]
    got = pair.engine.generate(
        [prompt for prompt, _ in rows],
        seeds=[seed for _, seed in rows],
        max_new_tokens=NEW,
        do_sample=True,
        seed_mode="torch",
        **config,
    )
    assert got == expected
    assert len(set(map(tuple, got))) > len(got) / 2  # something was drawn


def test_a_session_that_is_cut_and_asked_again_draws_what_generate_draws(pair_of):
    pair = pair_of("llama")
    prompt, seed = PROMPTS[0], 12345
    expected = theirs(pair, prompt, seed, {"top_k": 0})
    engine = pair.engine
    engine.handle(
        OpenSession(
            request_id=10**6,
            session_id="torch",
            sequences=[SequenceSpec(prompt, seed)],
            config=engine.config(do_sample=True, top_k=0, seed_mode="torch"),
            revision=0,
            max_length=len(prompt) + NEW,
            selection=ScoreSelection(),
            sample=True,
        )
    )
    (opened,) = [event for event in engine.drain() if hasattr(event, "rows")]

    def step(token_ids: list[int], look_ahead: bool = False) -> int:
        step.count += 1
        engine.handle(
            StepSession(
                request_id=10**6 + step.count,
                session_id="torch",
                rows=[StepRow(token_ids, None)],
                selection=ScoreSelection(),
                sample=True,
                look_ahead=look_ahead,
            )
        )
        (answer,) = [event for event in engine.drain() if hasattr(event, "rows")]
        return answer.rows[0].sampled_token_id

    step.count = 0
    tokens = [opened.rows[0].sampled_token_id]
    for _ in range(6):
        assert step([tokens[-1]], look_ahead=True) == step([tokens[-1]], look_ahead=True)
        tokens.append(step([tokens[-1]]))
    engine.handle(TruncateSession("torch", [len(prompt) + 4], request_id=10**7))
    engine.drain()
    tokens = tokens[:5]
    while len(tokens) < NEW:
        tokens.append(step([tokens[-1]]))
    assert tokens == expected
