"""Processors that are ours, the division of work with the fast path, and the ends of sequences."""

import time

import pytest
import torch

from model_service.engine.sampling import (
    processor_builders,
    row_processors,
    warpers,
)
from model_service.engine.sequences.sequence import RowCall, Sequence
from model_service.protocol.parameter import Stage
from model_service.protocol.parameters import CONFIG_PARAMETERS, PROCESSORS, GenerationConfig
from model_service.protocol.processor_arguments import (
    GreenListWatermark,
    ProcessorSpec,
    SynthIdWatermark,
)
from tests import sequence_factory
from tests.sequence_factory import make_sequence

SIZE = 50


def sequence(prompt=(1, 2, 3), new=(), **config) -> Sequence:
    resolved = GenerationConfig(**{"max_new_tokens": 20, **config})
    return make_sequence(prompt, resolved, size=SIZE, new=new)


def session_row(**arguments) -> Sequence:
    seq = sequence(**arguments)
    seq.call = RowCall(1)
    return seq


def scores(seq: Sequence, forbidden=()) -> torch.Tensor:
    return sequence_factory.scores(seq, torch.ones(SIZE), forbidden)


def changed(values: torch.Tensor) -> dict[int, float]:
    return {i: pytest.approx(float(v)) for i, v in enumerate(values) if v != 1.0}


def choose(seq: Sequence, row: torch.Tensor, forbidden=()):
    return sequence_factory.choose(row[None], [seq], forbidden)[0]


def test_the_presence_penalty_is_subtracted_once_from_generated_tokens_only():
    assert changed(scores(sequence(new=[7, 3, 7], presence_penalty=0.5))) == {3: 0.5, 7: 0.5}


def test_the_frequency_penalty_is_subtracted_per_occurrence():
    assert changed(scores(sequence(new=[7, 3, 7], frequency_penalty=0.25))) == {3: 0.75, 7: 0.5}


def test_penalties_are_subtracted_after_the_repetition_penalty_and_before_the_bias():
    seq = sequence(
        new=[7],
        repetition_penalty=2.0,
        prompt_ignore_length=3,
        presence_penalty=1.0,
        logit_bias=((7, 4.0),),
    )
    assert changed(scores(seq)) == {7: 3.5}


def test_the_repetition_penalty_does_not_see_ignored_tokens_of_the_prompt():
    seq = sequence(prompt=(1, 2, 3), new=[7], repetition_penalty=2.0, prompt_ignore_length=2)
    assert set(changed(scores(seq))) == {3, 7}


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("n", [0.3, 1.0, 2.0, 100.0])
def test_top_n_sigma_keeps_what_its_formula_keeps_at_any_temperature(n, temperature):
    row = torch.randn(SIZE, generator=torch.Generator().manual_seed(3))
    row[[4, 9]] = -torch.inf  # not counted
    seq = sequence(do_sample=True, top_k=0, temperature=temperature, top_n_sigma=n)
    finite = row[row.isfinite()]
    expected = row >= row.max() - n * finite.std(correction=0)
    kept = sequence_factory.scores(seq, row, ()) > -torch.inf
    assert torch.equal(kept, expected & row.isfinite())


def test_top_n_sigma_keeps_the_highest_score_and_as_many_as_are_asked_for():
    row = torch.arange(float(SIZE))
    for keep in (1, 3, SIZE + 1):
        seq = sequence(do_sample=True, top_k=0, top_n_sigma=1e-6, min_tokens_to_keep=keep)
        left = sequence_factory.scores(seq, row, ()) > -torch.inf
        assert left.nonzero()[:, 0].tolist() == list(range(SIZE))[-keep:]


def test_allowed_tokens_are_the_only_ones():
    left = scores(sequence(allowed_token_ids=(4, 9))) > -torch.inf
    assert left.nonzero()[:, 0].tolist() == [4, 9]


def test_a_forced_prefix_is_followed_by_a_free_choice():
    row = torch.zeros(SIZE)
    row[30] = 5.0
    seq = sequence(forced_prefix=(8, 9))
    chosen = []
    for _ in range(3):
        chosen.append(choose(seq, row).token_id)
        seq.append(chosen[-1])
    assert chosen == [8, 9, 30]


def test_forbidden_ids_stay_out_even_when_invalid_values_are_replaced():
    left = scores(sequence(remove_invalid_values=True), forbidden=(5,))
    assert (left == -torch.inf).nonzero()[:, 0].tolist() == [5]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_with_invalid_values_is_chosen_from_when_they_are_removed(value):
    row = torch.zeros(SIZE)
    row[5] = value
    row[30] = 5.0
    expected = 5 if value == torch.inf else 30
    assert choose(sequence(remove_invalid_values=True), row).token_id == expected


@pytest.mark.parametrize(
    "field", [{"top_h": 0.5}, {"eta_cutoff": 0.1}, {"top_n_sigma": 1.0}], ids=str
)
def test_a_row_with_nothing_left_fails_before_a_warper_needs_a_distribution(field):
    seq = sequence(do_sample=True, **field)
    choice = choose(seq, torch.zeros(SIZE), forbidden=range(SIZE))
    assert choice.failure.error == "NoTokenLeft"


def test_long_runs_of_the_prompt_take_no_memory():
    seq = sequence(encoder_no_repeat_ngram_size=2**31 - 1)
    assert changed(scores(seq)) == {}


def test_end_ids_that_the_revision_does_not_have_do_no_harm():
    seq = sequence(eos_token_ids=(4, SIZE + 7), exponential_decay_length_penalty=(0, 2.0), new=[1])
    assert changed(scores(seq)) == {4: 2.0}


UNCOVERED = {
    "guidance_scale": 2.0,
    "negative_prompt": (1,),
    "num_beams": 2,
    "length_penalty": 2.0,
    "early_stopping": True,
    "green_list_watermark": GreenListWatermark(),
    "synth_id_watermark": SynthIdWatermark(ngram_len=3, keys=(1, 2)),
    "renormalize_logits": True,
    "seed_mode": "torch",
    "processors": (ProcessorSpec("renormalize_logits", "{}"),),
}


def test_every_field_is_covered_by_the_fast_path_or_sends_the_row_to_the_reference():
    covered = {name for name, row in CONFIG_PARAMETERS.items() if row.fast_path == "always"}
    assert CONFIG_PARAMETERS.keys() - covered == UNCOVERED.keys()
    assert sequence().choosing.covered
    for name, value in UNCOVERED.items():
        greedy = sequence(**{name: value})
        sampled = sequence(do_sample=True, **{name: value})
        assert greedy.choosing.covered == (CONFIG_PARAMETERS[name].fast_path == "when greedy"), name
        assert sampled.choosing.covered == (CONFIG_PARAMETERS[name].fast_path == "when sampling"), (
            name
        )


def test_the_fast_path_knows_every_processor_and_warper():
    by_stage = {stage: [row.name for row in PROCESSORS if row.stage is stage] for stage in Stage}
    assert list(row_processors._BUILDERS) == by_stage[Stage.PROCESSOR]
    assert ["temperature", *warpers._WARPERS] == by_stage[Stage.WARPER]


def test_every_processor_can_be_built():
    assert list(processor_builders.BUILDERS) == [row.name for row in PROCESSORS]


def test_processors_are_built_once_per_sequence():
    seq = sequence(suppress_tokens=(1,))
    scores(seq)
    first = seq.choosing.processors
    scores(seq)
    assert seq.choosing.processors is first


def test_a_stop_sequence_must_be_generated_as_a_whole():
    seq = sequence(prompt=(1, 2), stop_sequences=((2, 3), (4, 5, 6)))
    reasons = [seq.append(token_id) for token_id in (3, 4, 5, 6)]
    assert reasons == [None, None, None, "stop_sequence"]
    assert sequence(new=[2], stop_sequences=((2, 3),)).append(3) == "stop_sequence"


def test_a_stop_sequence_also_ends_a_row_of_a_session():
    seq = session_row(new=[2], stop_sequences=((2, 3),))
    assert seq.finish_reason(3) == "stop_sequence"
    assert seq.finish_reason(4) is None


def test_a_time_limit_counts_from_the_arrival():
    assert sequence(max_time=100.0).append(1) is None
    seq = sequence(max_time=100.0)
    seq.call.arrival = time.monotonic() - 101.0
    assert seq.append(1) == "time_limit"


def test_the_length_limit_comes_with_the_last_token_allowed():
    seq = sequence(max_new_tokens=2)
    assert [seq.append(1), seq.append(1)] == [None, "max_new_tokens"]
    seq = sequence(new=[1] * 95, max_new_tokens=200)
    assert [seq.append(1), seq.append(1)] == [None, "context_length"]


def test_cutting_into_the_prompt_changes_what_counts_as_the_prompt():
    seq = session_row(prompt=(1, 2, 3), presence_penalty=0.5)
    assert changed(scores(seq)) == {}
    seq.truncate(1)
    seq.token_ids.append(7)
    assert changed(scores(seq)) == {7: 0.5}
