"""Rows of logits, sequences and configurations that the tests of this folder draw from."""

import torch
from hypothesis import strategies as st

from model_service.engine.sampling import processors
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.parameters import GenerationConfig
from tests.sequence_factory import make_sequence

ENDS = (5, 6)
MAX_NEW = 12


def sequence(size: int, prompt=(1, 2, 3), new=(), seed: int = 0, **config) -> Sequence:
    resolved = GenerationConfig(**{"max_new_tokens": MAX_NEW, **config})
    return make_sequence(prompt, resolved, size=size, new=new, seed=seed, max_length=2**20)


class ReferenceCalls:
    """Counts the rows for which the fast path left the decision to Hugging Face's classes."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        original = processors.scores

        def counting(*arguments):
            self.count += 1
            return original(*arguments)

        monkeypatch.setattr(processors, "scores", counting)


def random_logits(
    seed: int, size: int, scale: float = 3.0, kind: str = "normal", rows: int = 1
) -> torch.Tensor:
    """`[rows, size]` float32 of a kind that makes trouble of its own."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(rows, size, generator=generator) * scale
    if kind == "bfloat16":  # many ties
        return row.bfloat16().float()
    if kind == "rounded":  # hardly anything but ties
        return row.round()
    if kind == "flat":
        return row * 1e-3
    if kind == "constant":
        return torch.full_like(row, 0.3)
    if kind == "peaked":
        row[:, 0] += 60.0
    return row


kinds = st.sampled_from(["normal", "bfloat16", "rounded", "flat", "constant", "peaked"])


def token_ids(size: int) -> st.SearchStrategy[int]:
    """Ids that occur again and again, so that runs repeat."""
    return st.integers(0, min(size, 12) - 1) | st.integers(0, size - 1)


def warper_configs(size: int) -> st.SearchStrategy[dict]:
    """Any mix of warpers, the extremes of each included."""
    share = st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1.0, 1e-6, 1 - 1e-6])
    return st.fixed_dictionaries(
        {"do_sample": st.just(True), "top_k": st.integers(0, 60) | st.sampled_from([0, size])},
        optional={
            "temperature": st.floats(0.05, 5.0) | st.sampled_from([1e-6, 1e6]),
            "min_tokens_to_keep": st.integers(1, 5),
            "top_n_sigma": st.floats(0.0, 5.0) | st.sampled_from([1e-6, 100.0]),
            "top_h": st.floats(0.01, 1.0),
            "top_p": share,
            "min_p": share,
            "typical_p": st.floats(0.01, 1.0),
            "epsilon_cutoff": st.floats(0.0, 0.2) | st.sampled_from([1e-35, 0.999]),
            "eta_cutoff": st.floats(0.0, 0.2) | st.sampled_from([1e-35, 0.999]),
            "renormalize_logits": st.booleans(),
        },
    )


def processor_configs(size: int) -> st.SearchStrategy[dict]:
    """Any mix of the processors that Hugging Face has."""
    run = st.lists(token_ids(size), min_size=1, max_size=3).map(tuple)
    low = st.integers(0, size // 2 - 1)  # Hugging Face refuses to suppress what is forced
    high = st.lists(st.integers(size // 2, size - 1), min_size=1, max_size=9).map(tuple)
    return st.fixed_dictionaries(
        {"eos_token_ids": st.just(ENDS)},
        optional={
            "sequence_bias": st.dictionaries(run, st.floats(-9, 9), min_size=1, max_size=6).map(
                lambda biases: tuple(biases.items())
            ),
            "encoder_repetition_penalty": st.floats(0.5, 2.0),
            "repetition_penalty": st.floats(0.5, 2.0),
            "no_repeat_ngram_size": st.integers(0, 4),
            "encoder_no_repeat_ngram_size": st.integers(0, 4),
            "bad_words_ids": st.lists(run, min_size=1, max_size=3).map(tuple),
            "min_length": st.integers(0, 20),
            "min_new_tokens": st.integers(0, 8),
            "forced_bos_token_id": low,
            "forced_eos_token_ids": st.lists(low, min_size=1, max_size=4).map(tuple),
            "remove_invalid_values": st.booleans(),
            "exponential_decay_length_penalty": st.tuples(st.integers(0, 5), st.floats(0.9, 1.5)),
            "suppress_tokens": high,
            "begin_suppress_tokens": high,
        },
    )


def own_processor_configs(size: int) -> st.SearchStrategy[dict]:
    """Any mix of the processors that only we have."""
    penalty = st.floats(-3, 3)
    some = st.lists(token_ids(size), min_size=1, max_size=size, unique=True).map(tuple)
    return st.fixed_dictionaries(
        {},
        optional={
            "prompt_ignore_length": st.integers(0, 12),
            "presence_penalty": penalty,
            "frequency_penalty": penalty,
            "logit_bias": st.dictionaries(token_ids(size), penalty, max_size=9).map(
                lambda biases: tuple(biases.items())
            ),
            "allowed_token_ids": some,
            "forced_prefix": st.lists(token_ids(size), max_size=4).map(tuple),
        },
    )
