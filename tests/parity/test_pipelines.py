"""Explicit pipelines: applied exactly in the order given, by Hugging Face's own classes."""

import json

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_arguments import ProcessorSpec
from model_service.protocol.processor_order import in_default_order
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array, scores_of, tokens_of
from tests.parity.test_processors import ENDS, PROMPT, assert_equal_scores, mixes
from tests.sequence_factory import make_sequence, scores

FULL = ScoreSelection(logits=True, scores=True, amount="full")

PARTS = {
    "sequence_bias": (
        {"sequence_bias": [{"ids": [17, 42], "bias": 3.0}]},
        lambda: hf.SequenceBiasLogitsProcessor([[[17, 42], 3.0]]),
    ),
    "repetition_penalty": (
        {"penalty": 1.7},
        lambda: hf.RepetitionPenaltyLogitsProcessor(1.7),
    ),
    "no_repeat_ngram_size": ({"ngram_size": 2}, lambda: hf.NoRepeatNGramLogitsProcessor(2)),
    "suppress_tokens": (
        {"token_ids": [17, 42, 5]},
        lambda: hf.SuppressTokensLogitsProcessor([17, 42, 5]),
    ),
    "remove_invalid_values": ({}, lambda: hf.InfNanRemoveLogitsProcessor()),
    "min_new_tokens": (
        {"min_new_tokens": 3},
        lambda: hf.MinNewTokensLengthLogitsProcessor(len(PROMPT), 3, list(ENDS)),
    ),
    "exponential_decay_length_penalty": (
        {"start_index": 1, "decay_factor": 1.3},
        lambda: hf.ExponentialDecayLengthPenalty((1, 1.3), list(ENDS), len(PROMPT)),
    ),
    "temperature": ({"temperature": 0.6}, lambda: hf.TemperatureLogitsWarper(0.6)),
    "top_k": ({"top_k": 40}, lambda: hf.TopKLogitsWarper(40)),
    "top_p": (
        {"top_p": 0.8, "min_tokens_to_keep": 3},
        lambda: hf.TopPLogitsWarper(0.8, min_tokens_to_keep=3),
    ),
    "min_p": ({"min_p": 0.05}, lambda: hf.MinPLogitsWarper(0.05)),
    "typical_p": ({"typical_p": 0.7}, lambda: hf.TypicalLogitsWarper(0.7)),
    "epsilon_cutoff": ({"epsilon": 0.001}, lambda: hf.EpsilonLogitsWarper(0.001)),
    "green_list_watermark": (
        {"bias": 1.5, "self_hash": True},
        lambda: hf.WatermarkLogitsProcessor(
            VOCABULARY_SIZE, "cpu", bias=1.5, seeding_scheme="selfhash"
        ),
    ),
    "renormalize_logits": ({}, lambda: hf.LogitNormalization()),
}


def sequence(config: GenerationConfig, new=()) -> Sequence:
    return make_sequence(PROMPT, config, size=VOCABULARY_SIZE, new=new)


def specs(names) -> tuple[ProcessorSpec, ...]:
    return tuple(ProcessorSpec(name, json.dumps(PARTS[name][0])) for name in names)


def random_logits(seed: int) -> torch.Tensor:
    return torch.randn(VOCABULARY_SIZE, generator=torch.Generator().manual_seed(seed)) * 4


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(PARTS)), min_size=1, unique=True),
    new=st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=6),
    seed=st.integers(0, 2**31),
)
def test_any_order_equals_hugging_faces_classes_one_after_the_other(names, new, seed):
    config = GenerationConfig(
        max_new_tokens=10, do_sample=True, top_k=0, eos_token_ids=ENDS, processors=specs(names)
    )
    logits = random_logits(seed)
    got = scores(sequence(config, new), logits)
    expected = hf.LogitsProcessorList([PARTS[name][1]() for name in names])(
        torch.tensor([PROMPT + new]), logits[None].clone()
    )[0]
    # Some orders overflow, and theirs then have NaN as well.
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_order_matters():
    logits = random_logits(3)
    rows = []
    for names in (("temperature", "top_p"), ("top_p", "temperature")):
        config = GenerationConfig(
            max_new_tokens=1, do_sample=True, top_k=0, processors=specs(names)
        )
        rows.append(scores(sequence(config), logits))
    assert not torch.equal(rows[0] == -torch.inf, rows[1] == -torch.inf)


@settings(max_examples=60, deadline=None)
@given(config=mixes, new=st.lists(st.integers(0, 299), max_size=5), seed=st.integers(0, 2**31))
def test_the_default_order_written_out_gives_the_same_scores(config, new, seed):
    implied = GenerationConfig(max_new_tokens=10, **config)
    pipeline = tuple(
        ProcessorSpec(name, msgspec.json.encode(arguments).decode())
        for name, arguments in in_default_order(implied)
    )
    written = GenerationConfig(
        max_new_tokens=10,
        do_sample=implied.do_sample,
        top_k=0,
        eos_token_ids=implied.eos_token_ids,
        processors=pipeline,
    )
    logits = random_logits(seed)
    expected = scores(sequence(implied, new), logits)
    got = scores(sequence(written, new), logits)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("names", [["remove_invalid_values"], ["top_k", "remove_invalid_values"]])
def test_no_order_brings_a_forbidden_id_back(names):
    config = GenerationConfig(max_new_tokens=5, do_sample=True, top_k=0, processors=specs(names))
    logits = random_logits(0)
    forbidden = tuple(logits.topk(20).indices.tolist())
    got = scores(sequence(config), logits, forbidden)
    assert (got[list(forbidden)] == -torch.inf).all()
    assert int((got > torch.finfo(torch.float32).min).sum()) >= 40, "forbidden ids take no place"


def test_a_batch_mate_of_another_order_changes_nothing(pair_of):
    pair = pair_of("llama")
    orders = [("temperature", "top_p"), ("top_p", "temperature"), ("renormalize_logits",)]

    def submit(names):
        return pair.engine.submit(
            [PROMPT],
            seeds=[5],
            selection=FULL,
            max_new_tokens=6,
            do_sample=True,
            top_k=0,
            processors=specs(names),
        )

    alone = []
    for names in orders:
        request_id = submit(names)
        alone.append(tokens_of(pair.engine.drain(), request_id, 1))
    requests = [submit(names) for names in orders]
    events = pair.engine.drain()
    assert [tokens_of(events, request_id, 1) for request_id in requests] == alone
    for request_id, names in zip(requests, orders, strict=True):
        ids = list(PROMPT)
        for position in scores_of(events, request_id):
            logits = torch.from_numpy(array(position.logits))
            expected = hf.LogitsProcessorList([PARTS[name][1]() for name in names])(
                torch.tensor([ids]), logits[None].clone()
            )[0]
            assert_equal_scores(torch.from_numpy(array(position.scores)), expected, 1e-6)
            ids.append(position.token_id)
