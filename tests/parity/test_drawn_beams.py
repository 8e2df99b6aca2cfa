"""Beams that are drawn against `torch.manual_seed(s); generate(do_sample=True, num_beams=n)`."""

import pytest
import torch

from model_service.protocol import Cancel

from .conftest import Pair
from .test_beams import NEW, PROMPTS, assert_same, events_of, expected_of, search, some_ends
from .test_processors import their_options

CONFIGS = [
    {"num_beams": 2},
    {"num_beams": 2, "temperature": 0.4, "count": 2},
    {"num_beams": 3, "temperature": 1.7, "top_k": 40, "count": 2},
    {"num_beams": 3, "top_p": 0.8, "length_penalty": 0.0},
    {"num_beams": 4, "top_k": 25, "top_p": 0.95, "temperature": 1.2, "count": 4},
    {"num_beams": 4, "min_p": 0.05, "length_penalty": 2.0, "count": 3},
    {"num_beams": 5, "top_k": 60, "length_penalty": -1.0, "early_stopping": True, "count": 5},
    {"num_beams": 5, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "typical_p": 0.7, "renormalize_logits": True, "count": 3},
    {"num_beams": 8, "temperature": 3.0, "early_stopping": "never", "count": 2},
]


def drawn_by_generate(pair: Pair, prompt: list[int], seed: int, config: dict):
    options = their_options({"do_sample": True, **config})
    count = options.pop("count", 1)
    torch.manual_seed(seed)
    return expected_of(pair, prompt, num_return_sequences=count, **options)[0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_drawn_searches_of_prompts_in_one_call_equal_generate_of_each_alone(pair: Pair, config):
    """Each search has a generator of its own, with its own seed."""
    options = {"top_k": 0, **config}
    count = options.pop("count", 1)
    seeds = [7 + index * 2**30 for index in range(len(PROMPTS))]
    events = search(
        pair,
        PROMPTS,
        count=count,
        seeds=[seed for seed in seeds for _ in range(count)],
        do_sample=True,
        seed_mode="torch",
        min_tokens_to_keep=2,
        **options,
    )
    results = set()
    for index, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True)):
        expected = drawn_by_generate(pair, prompt, seed, config)
        assert_same(events[index * count : (index + 1) * count], expected)
        results.add(tuple(drawn_by_generate(pair, prompt, seed + 1, config)[0].token_ids))
        results.add(tuple(expected[0].token_ids))
    assert len(results) > len(PROMPTS)  # something was drawn


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("seed", [1, 2**32 + 5, 2**63 - 1])
def test_drawn_searches_that_end_at_different_times_equal_generate(pair_of, early_stopping, seed):
    pair, lengths = pair_of("llama"), set()
    for prompt in PROMPTS:
        ends = (*some_ends(pair, prompt, 4), 9, 30, 77)
        config = {
            "num_beams": 4,
            "early_stopping": early_stopping,
            "temperature": 0.6,
            "top_k": 12,
            "eos_token_ids": ends,
            "suppress_tokens": tuple(range(100, 300)),
        }
        expected = drawn_by_generate(pair, prompt, seed, {**config, "count": 2})
        options = {"do_sample": True, "seed_mode": "torch", "min_tokens_to_keep": len(ends) + 1}
        events = search(pair, [prompt], count=2, seeds=[seed] * 2, **options, **config)
        assert_same(events, expected)
        lengths |= {len(event.token_ids) for event in events}
    assert len(lengths) > 1


def test_neighbors_that_come_and_go_leave_draws_as_they_are(pair_of):
    pair = pair_of("llama")
    engine, ids, events = pair.engine, [], []
    options = {"do_sample": True, "seed_mode": "torch", "num_beams": 3, "top_k": 0}
    for seed, prompt in enumerate(PROMPTS):
        stranger = engine.submit([prompt[::-1]], max_new_tokens=30, **options)
        ids.append(
            engine.submit(
                [prompt], seeds=[seed], max_new_tokens=NEW, min_tokens_to_keep=2, **options
            )
        )
        for _ in range(3):
            events += engine.step() or []
        engine.handle(Cancel(stranger))
    events += engine.drain()
    for seed, (prompt, request_id) in enumerate(zip(PROMPTS, ids, strict=True)):
        expected = drawn_by_generate(pair, prompt, seed, {"num_beams": 3})
        assert_same(events_of(events, request_id), expected)
