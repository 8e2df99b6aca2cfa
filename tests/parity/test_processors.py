"""Every processor and warper against Hugging Face: alone through `generate`, mixed by its order."""

import msgspec
import pytest
import torch
from hypothesis import strategies as st
from transformers import SynthIDTextWatermarkingConfig, WatermarkingConfig

from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_arguments import GreenListWatermark, SynthIdWatermark
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array, scores_of, tokens_of

PROMPT = [17, 42, 17, 99, 42, 17, 5, 230, 17, 42]
ENDS = (5, 6)
NEW = 10
FULL = ScoreSelection(logits=True, scores=True, amount="full")

THEIR_NAMES = {
    "eos_token_ids": "eos_token_id",
    "forced_eos_token_ids": "forced_eos_token_id",
    "green_list_watermark": "watermarking_config",
    "synth_id_watermark": "watermarking_config",
}


def their_options(config: dict) -> dict:
    """Spells our fields as Hugging Face does; absent ones must not come from defaults."""
    options = {"top_k": 0} if config.get("do_sample") else {}
    for name, value in config.items():
        if name == "sequence_bias":
            value = [[list(ids), bias] for ids, bias in value]
        elif name == "green_list_watermark":
            value = WatermarkingConfig(
                greenlist_ratio=value.greenlist_ratio,
                bias=value.bias,
                hashing_key=value.hashing_key,
                seeding_scheme="selfhash" if value.self_hash else "lefthash",
                context_width=value.context_width,
            )
        elif name == "synth_id_watermark":
            fields = msgspec.structs.asdict(value)
            value = SynthIDTextWatermarkingConfig(**{**fields, "keys": list(value.keys)})
        elif isinstance(value, tuple) and name != "exponential_decay_length_penalty":
            value = [list(v) if isinstance(v, tuple) else v for v in value]
        options[THEIR_NAMES.get(name, name)] = value
    return options


def assert_equal_scores(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    excluded = expected == -torch.inf
    assert torch.equal(got == -torch.inf, excluded)
    got, expected = got[~excluded], expected[~excluded]
    # Extreme mixes overflow, and theirs then have NaN as well.
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


KEYS = (654, 400, 836, 123, 340, 443, 597, 160, 57)
SYNTH_ID = SynthIdWatermark(ngram_len=5, keys=KEYS)

GREEDY = [
    {"sequence_bias": (((17,), -8.0), ((17, 42), 6.0), ((9,), -float("inf")))},
    {"encoder_repetition_penalty": 3.0},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 2},
    {"bad_words_ids": ((17,), (5,), (42, 17))},
    {"min_length": 4, "eos_token_ids": ENDS},  # more than the prompt, see `lengthened`
    {"min_new_tokens": 4, "eos_token_ids": ENDS},
    {"forced_bos_token_id": 33},
    {"forced_eos_token_ids": (7, 8)},
    {"remove_invalid_values": True},
    {"exponential_decay_length_penalty": (2, 1.4), "eos_token_ids": ENDS},
    {"suppress_tokens": tuple(range(0, VOCABULARY_SIZE, 2))},
    {"begin_suppress_tokens": tuple(range(0, VOCABULARY_SIZE, 2))},
    {"begin_suppress_tokens": tuple(range(0, 290)), "forced_bos_token_id": 33},
    {"green_list_watermark": GreenListWatermark(bias=4.0)},
    {"green_list_watermark": GreenListWatermark(self_hash=True, bias=4.0, context_width=2)},
    {"synth_id_watermark": SYNTH_ID},
    {"synth_id_watermark": SynthIdWatermark(3, KEYS, 2, 7, 50, skip_first_ngram_calls=True)},
    {"renormalize_logits": True},
]

SAMPLED = [
    {"temperature": 0.5},
    {"top_h": 0.4},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"typical_p": 0.6},
    {"epsilon_cutoff": 0.01},
    {"eta_cutoff": 0.05},
    {"temperature": 2.0, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9},
    {"temperature": 0.7, "top_k": 60, "synth_id_watermark": SYNTH_ID},
    {"eta_cutoff": 0.01, "renormalize_logits": True, "green_list_watermark": GreenListWatermark()},
]


def name_of(config: dict) -> str:
    return "-".join(config)


def lengthened(config: dict, prompt: list[int]) -> dict:
    """Counts `min_length` from the end of the prompt, so that it has an effect."""
    if "min_length" not in config:
        return config
    return config | {"min_length": len(prompt) + config["min_length"]}


@pytest.mark.parametrize("prompt", [PROMPT, [17]], ids=["prompt", "single"])
@pytest.mark.parametrize("config", GREEDY, ids=name_of)
def test_greedy_tokens_and_scores_equal_generate(pair_of, config, prompt):
    pair = pair_of("llama")
    config = lengthened(config, prompt)
    expected = pair.generate(prompt, NEW, **their_options(config))
    request_id = pair.engine.submit([prompt], selection=FULL, max_new_tokens=NEW, **config)
    events = pair.engine.drain()
    assert tokens_of(events, request_id, 1) == [expected.token_ids]
    got = torch.stack([torch.from_numpy(array(p.scores)) for p in scores_of(events, request_id)])
    assert_equal_scores(got, expected.scores, 1e-4)


@pytest.mark.parametrize("config", GREEDY, ids=name_of)
def test_tokens_are_the_same_when_no_scores_are_asked_for(pair_of, config):
    pair = pair_of("llama")
    config = lengthened(config, PROMPT)
    expected = pair.generate(PROMPT, NEW, **their_options(config))
    neighbor = [PROMPT[::-1]]  # on the fast path
    pair.engine.submit(neighbor, max_new_tokens=NEW)
    request_id = pair.engine.submit([PROMPT], max_new_tokens=NEW, **config)
    assert tokens_of(pair.engine.drain(), request_id, 1) == [expected.token_ids]


@pytest.mark.parametrize("config", SAMPLED, ids=name_of)
def test_the_first_distribution_of_a_sampled_row_equals_that_of_generate(pair_of, config):
    pair = pair_of("llama")
    config = {"do_sample": True, "top_k": 0, **config}
    expected = pair.generate(PROMPT, 1, **their_options(config)).scores[0]
    request_id = pair.engine.submit(
        [PROMPT] * 6, seeds=list(range(6)), selection=FULL, max_new_tokens=1, **config
    )
    events = pair.engine.drain()
    for row in range(6):
        (position,) = scores_of(events, request_id, row)
        assert_equal_scores(torch.from_numpy(array(position.scores)), expected, 1e-4)
        assert expected[position.token_id] > -torch.inf
    # Fast or by reference, a draw does not depend on whether scores were asked for.
    plain = pair.engine.generate([PROMPT] * 6, seeds=list(range(6)), max_new_tokens=1, **config)
    assert plain == tokens_of(events, request_id, 6)


token_ids = st.integers(0, VOCABULARY_SIZE - 1)
# Hugging Face refuses to suppress what is forced.
forced_ids = st.integers(0, 99)
suppressed = st.lists(st.integers(100, VOCABULARY_SIZE - 1), min_size=1, max_size=9).map(tuple)
run = st.lists(token_ids | st.sampled_from(PROMPT), min_size=1, max_size=3).map(tuple)
mixes = st.fixed_dictionaries(
    {"do_sample": st.booleans(), "top_k": st.integers(0, 60), "eos_token_ids": st.just(ENDS)},
    optional={
        "sequence_bias": st.dictionaries(run, st.floats(-9, 9), min_size=1, max_size=3).map(
            lambda biases: tuple(biases.items())
        ),
        "encoder_repetition_penalty": st.floats(0.5, 2.0),
        "repetition_penalty": st.floats(0.5, 2.0),
        "no_repeat_ngram_size": st.integers(0, 4),
        "encoder_no_repeat_ngram_size": st.integers(0, 4),
        "bad_words_ids": st.lists(run, min_size=1, max_size=3).map(lambda r: ((9,), *r)),
        "min_length": st.integers(0, 11),
        "min_new_tokens": st.integers(0, 8),
        "forced_bos_token_id": forced_ids,
        "forced_eos_token_ids": st.lists(forced_ids, min_size=1, max_size=4).map(tuple),
        "remove_invalid_values": st.booleans(),
        "exponential_decay_length_penalty": st.tuples(st.integers(0, 5), st.floats(0.9, 1.5)),
        "suppress_tokens": suppressed,
        "begin_suppress_tokens": suppressed,
        "temperature": st.floats(0.3, 3.0),
        "top_h": st.floats(0.1, 1.0),
        "top_p": st.floats(0.05, 1.0),
        "min_p": st.floats(0.0, 0.5),
        "typical_p": st.floats(0.1, 1.0),
        "epsilon_cutoff": st.floats(0.0, 0.05),
        "eta_cutoff": st.floats(0.0, 0.05),
        "green_list_watermark": st.builds(
            GreenListWatermark, bias=st.floats(0, 5), self_hash=st.booleans()
        ),
        "renormalize_logits": st.booleans(),
    },
)
