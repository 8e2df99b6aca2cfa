import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig as HFGenerationConfig
from transformers import LlamaConfig, LlamaForCausalLM

from model_service.engine.sampling import processors, sampler
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.parameters import PARAMETERS, GenerationConfig
from model_service.protocol.processor_arguments import GreenListWatermark, ProcessorSpec
from tests.sequence_factory import choose as choose_all
from tests.sequence_factory import draw, make_sequence, scores

SIZE = 400


def sequence(prompt=(1, 2, 3), seed=0, size=SIZE, **config) -> Sequence:
    resolved = GenerationConfig(**{"max_new_tokens": 50, **config})
    return make_sequence(prompt, resolved, size=size, seed=seed)


def logits(seed: int, rows: int = 1, size: int = SIZE, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * scale


def choose(row: torch.Tensor, seq: Sequence, forbidden=(), wants_scores=False):
    return choose_all(row, [seq], forbidden, wants_scores=wants_scores)[0]


configs = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.05, 5.0),
        "top_k": st.integers(1, 60),
        "top_p": st.one_of(st.just(1.0), st.floats(0.0, 1.0)),
        "min_tokens_to_keep": st.integers(1, 3),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.7]),
        "min_new_tokens": st.integers(0, 2),
    }
)


@settings(max_examples=300, deadline=None)
@given(config=configs, seed=st.integers(0, 2**62), rounds=st.booleans())
def test_the_fast_path_chooses_what_hugging_faces_own_classes_do(config, seed, rounds):
    seq = sequence(prompt=[5, 9, 9, 200], seed=seed, do_sample=True, eos_token_ids=(7, 9), **config)
    row = logits(seed % 1000)
    if rounds:  # many ties, as bfloat16 has
        row = row.bfloat16().float().round(decimals=0)
    fast = choose(row, seq).token_id
    reference = choose(row, seq, wants_scores=True).token_id
    assert fast == reference


@pytest.mark.parametrize("seed_mode", ["counter", "torch"])
@pytest.mark.parametrize("wants_scores", [False, True])
@pytest.mark.parametrize("top_k", [0, 1, 50])
def test_scores_that_overflow_are_no_distribution_to_draw_from(seed_mode, wants_scores, top_k):
    options = {"temperature": 1e-39, "seed_mode": seed_mode, "top_k": top_k}
    for row in (logits(1), torch.zeros(1, SIZE).index_fill(1, torch.tensor([3]), 5.0)):
        seq = sequence(prompt=[5], seed=1, do_sample=True, **options)
        choice = choose(row, seq, wants_scores=wants_scores)
        assert choice.token_id is None
        assert choice.failure.error == "NonFiniteScores"


END = 7

# The ends of the ranges of every float that changes scores, and of what is one list of them.
ENDS = {
    **{
        name: [PARAMETERS[name].kind.low, float(PARAMETERS[name].kind.high)]
        for name in ("temperature", "repetition_penalty", "encoder_repetition_penalty")
    },
    **{
        name: [PARAMETERS[name].kind.low + 1e-45, PARAMETERS[name].kind.high - 1e-7]
        for name in (
            "top_n_sigma",
            "top_p",
            "top_h",
            "min_p",
            "typical_p",
            "epsilon_cutoff",
            "eta_cutoff",
        )
    },
    **{name: [-100.0, 100.0] for name in ("presence_penalty", "frequency_penalty")},
    "sequence_bias": [(((END,), bias), ((5, END), bias)) for bias in (-1e9, 1e9, -math.inf)],
    "logit_bias": [((END, bias), (9, -bias)) for bias in (-100.0, 100.0)],
    "green_list_watermark": [
        GreenListWatermark(greenlist_ratio=ratio, bias=bias)
        for ratio in (1e-45, 0.9999999)
        for bias in (-100.0, 100.0)
    ],
}
LARGE = 1e5


def ends_of_ranges(rng):
    """Draws a configuration of values at the ends of their ranges."""
    names = rng.sample(sorted(ENDS), rng.randint(1, len(ENDS)))
    return {name: rng.choice(ENDS[name]) for name in names}


@pytest.mark.parametrize("seed_mode", ["counter", "torch"])
@pytest.mark.parametrize("wants_scores", [False, True])
@pytest.mark.parametrize("do_sample", [False, True])
def test_no_values_within_their_ranges_make_scores_that_are_not_finite(
    do_sample, wants_scores, seed_mode
):
    rows = [logits(1, scale=LARGE / 4), logits(2).clamp(-1, 1) * LARGE, torch.zeros(1, SIZE)]
    for number in range(25):
        config = ends_of_ranges(random.Random(number))
        for row in rows:
            seq = sequence(prompt=[5, END, 5], do_sample=do_sample, seed_mode=seed_mode, **config)
            choice = choose(row, seq, wants_scores=wants_scores)
            assert choice.failure is None, (number, config)


@pytest.mark.parametrize(
    "pipeline",
    [
        [("temperature", {"temperature": 1e-10})] * 8,
        [("temperature", {"temperature": 1e-10}), ("top_p", {"top_p": 0.5})] * 8,
    ],
)
def test_many_processors_together_are_not_taken_for_a_fault_of_the_model(pipeline):
    specs = tuple(ProcessorSpec(name, json.dumps(arguments)) for name, arguments in pipeline)
    seq = sequence(do_sample=True, processors=specs)
    assert choose(logits(1), seq).failure.error == "NonFiniteScores"


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("num_tokens", [3, 40, 90])
def test_a_length_penalty_that_overflows_is_not_taken_for_a_fault_of_the_model(
    num_tokens, do_sample
):
    decay = (0, 100.0)  # 100^155 is beyond what Python can raise to, 100^20 beyond float32
    config = {"exponential_decay_length_penalty": decay, "eos_token_ids": (END,)}
    prompt = [1]
    seq = sequence(prompt=prompt, do_sample=do_sample, **config)
    seq.token_ids += [2] * num_tokens * 4
    choice = choose(logits(1).abs() + 1, seq)
    if choice.failure is None:
        assert choice.token_id == END
    else:
        assert choice.failure.error == "NonFiniteScores"


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    penalty=st.sampled_from([1.0, 1.5, 0.5]),
    forbidden=st.sets(st.integers(0, SIZE - 1), max_size=5),
    minimum=st.integers(0, 2),
)
def test_greedy_rows_equal_the_reference(seed, penalty, forbidden, minimum):
    row = logits(seed % 1000).round()
    best = int(row.argmax())
    seq = sequence(
        prompt=[best, 3],
        repetition_penalty=penalty,
        eos_token_ids=(best, 2),
        min_new_tokens=minimum,
    )
    fast = choose(row, seq, forbidden)
    assert fast.token_id == choose(row, seq, forbidden, wants_scores=True).token_id


def test_processed_scores_equal_those_that_generate_applies():
    """Compares with `GenerationMixin._get_logits_processor`, which fixes the order."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SIZE,
            hidden_size=8,
            num_hidden_layers=1,
            intermediate_size=8,
            num_attention_heads=1,
        )
    )
    options = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.8,
        "repetition_penalty": 1.2,
        "min_new_tokens": 3,
    }
    theirs = HFGenerationConfig(**options, eos_token_id=[4, 5], max_length=50)
    theirs._eos_token_tensor = torch.tensor([4, 5])
    ids = torch.tensor([[8, 9, 10]])
    expected = model._get_logits_processor(
        theirs, input_ids_seq_length=3, encoder_input_ids=ids, device="cpu"
    )(ids, logits(3))
    seq = sequence(prompt=[8, 9, 10], eos_token_ids=(4, 5), **options)
    assert torch.equal(scores(seq, logits(3)[0]), expected[0])


def test_a_seeded_row_does_not_depend_on_its_neighbors():
    rows = logits(1, rows=6)
    sequences = [sequence(seed=i, do_sample=True, top_k=20 + i) for i in range(6)]
    together = [choice.token_id for choice in choose_all(rows, sequences)]
    alone = [choose(rows[i : i + 1], seq).token_id for i, seq in enumerate(sequences)]
    assert together == alone


def test_the_same_seed_and_position_draw_the_same_token_and_others_do_not():
    row = torch.zeros(1, SIZE)
    draws = [choose(row, sequence(seed=s, do_sample=True, top_k=0)).token_id for s in range(50)]
    again = [choose(row, sequence(seed=s, do_sample=True, top_k=0)).token_id for s in range(50)]
    assert draws == again
    assert len(set(draws)) > 40


@pytest.mark.parametrize("top_k", [0, 50], ids=["open", "top-k"])
def test_draws_follow_the_distribution(top_k):
    """Chi-square against a float64 softmax over 20,000 seeds, alpha = 1e-6."""
    row = logits(9, scale=2.0)
    keep = SIZE if top_k == 0 else top_k
    threshold = row[0].sort(descending=True).values[keep - 1]
    probs = row[0].double().masked_fill(row[0] < threshold, -torch.inf).softmax(-1).numpy()
    count = 20_000
    config = {"do_sample": True, "top_k": top_k, "temperature": 1.0}
    tokens = []
    for start in range(0, count, 500):
        sequences = [sequence(seed=start + i, **config) for i in range(500)]
        tokens += [c.token_id for c in choose_all(row.expand(500, -1), sequences)]
    observed = np.bincount(tokens, minlength=SIZE)
    assert (observed[probs == 0] == 0).all()
    large = probs * count >= 5
    expected = np.append(probs[large], probs[~large].sum()) * count
    seen = np.append(observed[large], observed[~large].sum())
    kept = expected > 0
    statistic = ((seen[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    degrees = kept.sum() - 1
    assert statistic < degrees + 6 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("size", [33, 400, 4099, 49152])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wants_scores": True},
        {"config": {"repetition_penalty": 1.5}},
        {"config": {"renormalize_logits": True}},
        {"forbidden": (0,)},
    ],
    ids=["plain", "scores", "processed", "reference", "forbidden"],
)
def test_greedy_ties_go_to_the_lowest_id(size, options):
    """Wherever they are: vectors and threads take parts of a row."""
    config = options.get("config", {})
    generator = torch.Generator().manual_seed(size)
    for _ in range(20):
        row = torch.zeros(1, size)
        tied = torch.randint(4, size, (6,), generator=generator)
        row[0, tied] = 2.0
        choice = choose(
            row,
            sequence(size=size, **config),
            options.get("forbidden", ()),
            options.get("wants_scores", False),
        )
        assert choice.token_id == int(tied.min())


def test_all_ties_of_the_kth_value_can_be_drawn():
    row = torch.full((1, SIZE), -10.0)
    row[0, :40] = 1.0
    drawn = {choose(row, sequence(seed=s, do_sample=True, top_k=1)).token_id for s in range(400)}
    assert drawn == set(range(40))


@pytest.mark.parametrize("do_sample", [True, False])
def test_huge_finite_logits_are_numbers(do_sample):
    """Their sum is not."""
    row = torch.full((1, SIZE), 3e38)
    row[0, 7] = 3.3e38
    choice = choose(row, sequence(do_sample=do_sample, top_k=1))
    assert choice.failure is None
    assert choice.token_id == 7


@pytest.mark.parametrize(("value", "ids"), [(torch.nan, 5), (torch.inf, 5), (-torch.inf, ...)])
def test_a_row_that_is_not_finite_fails_alone(value, ids):
    rows = logits(1, rows=2)
    rows[0, ids] = value
    bad, good = choose_all(rows, [sequence(), sequence()])
    assert bad.failure.error == "NonFiniteLogits"
    assert good.token_id == int(rows[1].argmax())


@pytest.mark.parametrize("wants_scores", [False, True])
def test_an_id_that_the_model_masks_is_not_chosen_and_the_others_are(wants_scores):
    row = torch.tensor([[0.0, 0.1, 0.8, 0.1]]).log()
    assert choose(row, sequence(size=4), wants_scores=wants_scores).token_id == 2
    drawn = [
        choose(row, sequence(size=4, seed=seed, do_sample=True), wants_scores=wants_scores).token_id
        for seed in range(100)
    ]
    assert {1, 2, 3} == set(drawn)
    assert drawn.count(2) > 60


def test_a_row_whose_only_logits_are_behind_its_revision_is_not_finite():
    row = torch.full((1, SIZE + 1), -torch.inf)
    row[0, SIZE] = 1.0
    assert choose(row, sequence()).failure.error == "NonFiniteLogits"


@pytest.mark.parametrize("do_sample", [True, False])
def test_a_row_with_no_token_left_says_so(do_sample):
    choice = choose(logits(1), sequence(do_sample=do_sample), forbidden=range(SIZE))
    assert choice.failure.error == "NoTokenLeft"


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_draw_without_failing(temperature):
    choice = choose(logits(2), sequence(do_sample=True, temperature=temperature))
    assert choice.token_id is not None


def test_a_processor_that_fails_ends_its_own_row_only(monkeypatch):
    def fail(*_):
        raise IndexError("index 40 is out of bounds")

    rows = logits(1, rows=2)
    monkeypatch.setattr(processors, "scores", fail)
    draws = [draw(sequence(), 0, wants_scores=True), draw(sequence(), 1)]
    bad, good = sampler.choose(rows, draws)
    assert bad.failure.error == "InternalError"
    assert good.token_id == int(rows[1].argmax())
