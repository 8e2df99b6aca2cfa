"""The arithmetic of one search against Hugging Face's, on log-probabilities made up."""

import math
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import GenerationMixin
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from model_service.engine.calls.beam_search import BeamSearch
from model_service.engine.sampling import random
from model_service.engine.sampling.draw import without_replacement
from model_service.engine.sampling.torch_draws import TorchDraws

SIZE = 11
PROMPT = [1, 2]


def logits_of(token_ids: list[int], seed: int) -> Tensor:
    """Logits that depend on the whole sequence, `[SIZE]` float32."""
    generator = torch.Generator().manual_seed(hash((seed, *token_ids)) % 2**31)
    return torch.randn(SIZE, generator=generator) * 2


class Made(GenerationMixin):
    """Hugging Face's search over made up logits."""

    config = SimpleNamespace(is_encoder_decoder=False)

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, input_ids: Tensor, **_):
        rows = [logits_of(row.tolist(), self._seed) for row in input_ids]
        return SimpleNamespace(logits=torch.stack(rows)[:, None])

    def _prefill(self, input_ids, *_, **__):
        return self(input_ids)

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def _update_model_kwargs_for_generation(self, _, model_kwargs, **__):
        return model_kwargs


def theirs(seed: int, ends: tuple[int, ...], new: int, num_beams: int, do_sample=False, **options):
    """Returns the tokens, scores and beams of all results, best first."""
    config = GenerationConfig(
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_length=len(PROMPT) + new,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=do_sample,
        low_memory=None,
        output_logits=False,
        output_attentions=False,
        output_hidden_states=False,
        **defaults(options),
    )
    config._pad_token_tensor = None
    config._eos_token_tensor = torch.tensor(ends) if ends else None
    criteria = StoppingCriteriaList([MaxLengthCriteria(config.max_length)])
    if ends:
        criteria.append(EosTokenCriteria(list(ends)))
    out = Made(seed)._beam_search(
        torch.tensor([PROMPT] * num_beams),
        LogitsProcessorList(),
        criteria,
        config,
        use_cache=False,
    )
    lengths = (out.beam_indices >= 0).sum(-1).tolist()
    return [
        (
            row[len(PROMPT) : len(PROMPT) + length].tolist(),
            float(score),
            beams[:length].tolist(),
        )
        for row, score, beams, length in zip(
            out.sequences, out.sequences_scores, out.beam_indices, lengths, strict=True
        )
    ]


def ours(seed: int, ends: tuple[int, ...], new: int, num_beams: int, draw=None, **options):
    search = BeamSearch(
        num_beams=num_beams, num_ends=len(ends), max_new_tokens=new, **defaults(options)
    )
    while not search.done:
        paths = [[step.token_id for step in path.steps()] if path else [] for path in search.beams]
        length = len(paths[0])
        rows = torch.stack([logits_of(PROMPT + path, seed) for path in paths])

        def end(_, token_id, last=length + 1 == new):
            return "eos_token" if token_id in ends else "max_new_tokens" if last else None

        drawn = draw and (lambda sums, count, index=length: draw(sums, count, index))
        search.advance(rows.log_softmax(-1), end=end, draw=drawn)
    return [
        (
            [step.token_id for step in hypothesis.path.steps()],
            hypothesis.score,
            [step.beam for step in hypothesis.path.steps()],
        )
        for hypothesis in search.finished
    ]


def defaults(options):
    return {"length_penalty": 1.0, "early_stopping": False} | options


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ends=st.sets(st.integers(0, SIZE - 1), max_size=3).map(tuple),
    new=st.integers(1, 9),
    num_beams=st.integers(2, 5),
    length_penalty=st.sampled_from([-2.0, -0.5, 0.0, 0.3, 1.0, 3.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
)
def test_results_equal_hugging_faces(seed, ends, new, num_beams, length_penalty, early_stopping):
    options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    expected = theirs(seed, ends, new, num_beams, **options)
    got = ours(seed, ends, new, num_beams, **options)
    possible = [result for result in expected if result[1] > -1e8]
    assert got == possible


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    draws=st.integers(0, 2**63 - 1),
    ends=st.sets(st.integers(0, SIZE - 1), max_size=3).map(tuple),
    new=st.integers(1, 9),
    num_beams=st.integers(2, 5),
    length_penalty=st.sampled_from([-0.5, 0.0, 1.0, 3.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
)
def test_searches_drawn_as_torch_does_equal_hugging_faces(
    seed, draws, ends, new, num_beams, length_penalty, early_stopping
):
    options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    torch.manual_seed(draws)
    expected = theirs(seed, ends, new, num_beams, do_sample=True, **options)
    got = ours(seed, ends, new, num_beams, draw=TorchDraws(draws).draw_several, **options)
    assert got == [result for result in expected if result[1] > -1e8]


@pytest.mark.parametrize("penalty", [-100.0, 100.0])
def test_an_extreme_penalty_still_gives_sequences(penalty):
    results = ours(3, (4,), 400, 2, length_penalty=penalty)
    assert len(results) == 2
    assert all(math.isfinite(score) for _, score, _ in results)


def test_nothing_is_returned_twice_when_there_are_fewer_sequences_than_beams():
    search = BeamSearch(
        num_beams=3, num_ends=0, max_new_tokens=2, length_penalty=1.0, early_stopping=False
    )
    only = torch.full((3, SIZE), -torch.inf)
    only[:, 7] = 0.0
    for last in (False, True):
        search.advance(only, end=lambda _, __, last=last: "max_new_tokens" if last else None)
    (hypothesis,) = search.finished
    assert [step.token_id for step in hypothesis.path.steps()] == [7, 7]
    assert search.done


def test_long_sequences_are_given_free_without_recursion():
    search = BeamSearch(
        num_beams=1, num_ends=0, max_new_tokens=10**6, length_penalty=1.0, early_stopping=False
    )
    row = torch.zeros(1, 2)
    for _ in range(5000):
        search.advance(row, end=lambda *_: None)
    del search


def test_only_tokens_that_are_kept_are_described():
    described = []

    def describe(beam, token_id):
        described.append((beam, token_id))

    search = BeamSearch(
        num_beams=2, num_ends=1, max_new_tokens=9, length_penalty=1.0, early_stopping=False
    )
    row = logits_of([], 1).log_softmax(-1).expand(2, -1)
    search.advance(
        row, end=lambda _, token_id: "eos_token" if token_id == 0 else None, describe=describe
    )
    kept = {path.token_id for path in search.beams}
    assert {token_id for _, token_id in described} - {0} == kept


def test_candidates_are_drawn_without_replacement_in_the_order_of_the_draws():
    """Ordered triples against their exact probabilities."""
    probabilities = [0.4, 0.25, 0.2, 0.1, 0.05]
    sums = torch.tensor(probabilities).log()
    count = 6000
    keys = random.keys(list(range(count)), [4] * count)
    drawn = Counter(
        tuple(without_replacement(sums, 3, keys[run : run + 1]).tolist()) for run in range(count)
    )
    statistic = 0.0
    for triple in permutations(range(5), 3):
        left, expected = 1.0, float(count)
        for index in triple:
            expected *= probabilities[index] / left
            left -= probabilities[index]
        statistic += (drawn[triple] - expected) ** 2 / expected
    assert sum(drawn.values()) == count
    assert statistic < 98.3  # chi-square with 59 degrees of freedom, p = 0.001


def test_what_is_impossible_is_drawn_last():
    sums = torch.tensor([-math.inf, -1e9, 0.0, -math.inf])
    for seed in range(50):
        draws = [
            without_replacement(sums, 3, random.keys([seed], [4])),
            TorchDraws(seed).draw_several(sums, 3, 0),
        ]
        assert [drawn.tolist()[0] for drawn in draws] == [2, 2]
        assert draws[0].tolist()[1] == 1


def test_drawn_searches_are_as_frequent_as_hugging_faces():
    """Best sequences of many searches, theirs and ours, as two samples of one distribution."""
    torch.manual_seed(2)

    def drawn(run: int):
        def draw(sums: Tensor, count: int, index: int) -> Tensor:
            return without_replacement(sums, count, random.keys([run], [index]))

        return draw

    search = {"seed": 5, "ends": (3,), "new": 2, "num_beams": 2}
    runs = 1200
    expected = Counter(tuple(theirs(**search, do_sample=True)[0][0]) for _ in range(runs))
    got = Counter(tuple(ours(**search, draw=drawn(run))[0][0]) for run in range(runs))
    common = [path for path in expected | got if expected[path] + got[path] >= 20]
    assert len(common) > 5
    statistic = sum(
        (expected[path] - got[path]) ** 2 / (expected[path] + got[path]) for path in common
    )
    assert statistic < len(common) + 3.3 * math.sqrt(2 * len(common))
    assert sum(got[path] for path in common) > runs / 2


def advance(search: BeamSearch, *rows: dict[int, float]) -> None:
    """Appends tokens by the log-probabilities of some ids; 0 and 1 end a sequence."""
    log_probs = torch.full((2, SIZE), -20.0)
    for row, values in zip(log_probs, rows, strict=True):
        row[list(values)] = torch.tensor([*values.values()])
    search.advance(log_probs, end=lambda _, token_id: "eos_token" if token_id < 2 else None)


def test_there_are_beams_to_go_on_with_when_all_ends_are_likelier():
    search = BeamSearch(
        num_beams=2, num_ends=2, max_new_tokens=9, length_penalty=1.0, early_stopping=False
    )
    first = {2: -0.5, 3: -0.6}
    advance(search, first, first)
    ends_first = {0: -1.0, 1: -1.1, 5: -8.0}
    advance(search, ends_first, ends_first)
    assert [path.token_id for path in search.beams] == [5, 5]


def test_a_penalty_below_zero_hopes_for_the_next_token_and_not_for_the_longest_sequence():
    search = BeamSearch(
        num_beams=2, num_ends=1, max_new_tokens=100, length_penalty=-1.0, early_stopping="never"
    )
    first = {2: -0.1, 0: -2.5}
    advance(search, first, first)
    advance(search, {0: -0.4, 3: -0.5}, {3: -9.0})
    assert [hypothesis.score for hypothesis in search.finished] == pytest.approx([-1.0, -2.5])
    assert not search.done
