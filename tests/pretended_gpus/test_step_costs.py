"""What a decoding step costs on a GPU: launches, uploads, and how often the CPU waits for it.

Without a GPU a step that has become slower on one shows here only. Lower a figure when a step
becomes cheaper; to raise one is a decision.
"""

import functools
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from model_service.engine.schedule import prefill
from model_service.protocol import Cancel, Report
from tests.engine_harness import InprocEngine
from tests.fakes.device_costs import LAUNCH_S, Costs

from .device_maps import ONE, TWO
from .kinds import FULL, TOP

pytestmark = pytest.mark.pretended_gpu

WAITS = 2
"""Most synchronisations of a step, whatever its rows ask for."""

LAYER_LAUNCHES = 42
"""Most launches of a layer, eagerly, for rows of different lengths; four of them gather pages."""

UPLOADS = 4
"""Most uploads of a step of greedy rows: tokens, slots, masks, and pages that are new."""

STEP_LAUNCHES = 40
"""Most launches of a step besides, for greedy rows."""

FAST = {
    "greedy": {},
    "top_k": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9},
    "temperature": {"do_sample": True, "top_k": 0},
    "flat": {"do_sample": True, "top_k": 0, "temperature": 50.0},
    "top_p": {"do_sample": True, "top_k": 0, "top_p": 0.9},
    "typical": {"do_sample": True, "top_k": 0, "typical_p": 0.9},
    "cutoffs": {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
    "top_n_sigma": {"do_sample": True, "top_k": 0, "top_n_sigma": 1.0},
    "penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "exclusions": {"min_new_tokens": 20, "eos_token_ids": (5,), "no_repeat_ngram_size": 2},
    "biases": {"logit_bias": ((5, 1.0),), "bad_words_ids": ((5, 6), (7,))},
}

SLOW = {
    "scores": {"selection": FULL},
    "the best scores": {"selection": TOP},
    "sampled, scores": {"do_sample": True, "selection": FULL},
    "guidance": {"guidance_scale": 1.5, "do_sample": True},
    "drawn as torch": {"do_sample": True, "seed_mode": "torch"},
    "beams": {"num_beams": 2},
}


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory):
    """A folder by number of layers: more ids than there are candidates."""

    @functools.cache
    def made(layers: int) -> Path:
        folder = tmp_path_factory.mktemp(f"wide-{layers}")
        config = LlamaConfig(
            **{"vocab_size": 4096, "hidden_size": 64, "intermediate_size": 128},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
            **{"max_position_embeddings": 256, "num_hidden_layers": layers},
            **{"bos_token_id": None, "eos_token_id": None},
        )
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return made


def decoding(engine: InprocEngine, kinds: list[dict]) -> list[int]:
    """Lets rows of different lengths begin, until all of them decode. Returns their calls."""
    ids = []
    for index, kind in enumerate(kinds):
        prompt = [(7 * index + place) % 300 for place in range(10 + 3 * index)]
        ids.append(engine.submit([prompt], [index], max_new_tokens=24, **kind))
    for _ in range(4):
        engine.step()
    return ids


def step_costs(engine: InprocEngine, costs: Costs, steps: int = 1) -> tuple[int, int, int]:
    """Returns launches, uploads and synchronisations of steps."""
    costs.clear()
    for _ in range(steps):
        engine.step()
    return costs.launches, costs.uploads, costs.synchronisations


@pytest.mark.parametrize("kinds", [*FAST.values(), *SLOW.values()], ids=[*FAST, *SLOW])
def test_rows_of_one_kind_wait_for_the_gpu_twice_a_step_at_most(served, wide, costs, kinds):
    engine = served(ONE, wide(1))
    decoding(engine, [kinds] * 4)
    for _ in range(5):
        assert step_costs(engine, costs)[2] <= WAITS, costs.waits


def test_any_mix_of_rows_waits_for_the_gpu_twice_a_step_at_most(served, wide, costs):
    engine = served(ONE, wide(1))
    decoding(engine, [*FAST.values(), *SLOW.values()] * 2)
    for _ in range(5):
        assert step_costs(engine, costs)[2] <= WAITS, costs.waits


def test_greedy_rows_wait_for_the_gpu_once_a_step(served, wide, costs):
    engine = served(ONE, wide(1))
    decoding(engine, [FAST["greedy"]] * 8)
    assert step_costs(engine, costs)[2] == 1, costs.waits


@pytest.mark.parametrize("rows", [1, 8])
def test_launches_and_uploads_of_a_step_stay_what_they_are(served, wide, costs, rows):
    by_layers = {}
    for layers in (1, 3):
        engine = served(ONE, wide(layers))
        decoding(engine, [FAST["greedy"]] * rows)
        by_layers[layers] = step_costs(engine, costs)
    a_layer = (by_layers[3][0] - by_layers[1][0]) / 2
    assert a_layer <= LAYER_LAUNCHES
    assert by_layers[1][0] - a_layer <= STEP_LAUNCHES
    assert by_layers[1][1] == by_layers[3][1] <= UPLOADS


def test_rows_in_scattered_slots_upload_once_a_step_and_not_once_a_layer(served, wide, costs):
    engine = served(ONE, wide(3))
    ids = decoding(engine, [{}] * 8)
    for place in (1, 2, 3, 4, 6, 7):
        engine.handle(Cancel(ids[place]))
    assert [seq.slot for seq in engine.engine._scheduler.active] == [0, 5]
    assert step_costs(engine, costs)[1] <= UPLOADS


def test_a_sampled_row_more_costs_no_launch_more(served, wide, costs):
    counts = []
    for rows in (4, 8):
        engine = served(ONE, wide(1))
        decoding(engine, [FAST["top_k"]] * rows)
        counts.append(step_costs(engine, costs)[0])
    assert counts[0] == counts[1]


@pytest.mark.filterwarnings("ignore:You are calling .generate")  # Hugging Face's, about hooks
def test_a_model_over_two_gpus_waits_no_more_often(served, costs):
    engine = served(TWO)
    decoding(engine, [*FAST.values()])
    for _ in range(3):
        assert step_costs(engine, costs)[2] <= WAITS, costs.waits


def test_the_budget_of_prompts_is_learnt_from_the_time_of_the_gpu(served, wide, costs, monkeypatch):
    learnt = []
    monkeypatch.setattr(
        prefill.PrefillClock, "learn", lambda self, *measured: learnt.append(measured)
    )
    engine = served(ONE, wide(1))
    engine.submit([list(range(40))], max_new_tokens=2)
    costs.clear()
    report: Report = engine.engine.step()
    ((decode_tokens, prefill_work, duration_s),) = learnt
    assert decode_tokens == 0
    assert prefill_work >= 40
    assert 30 * LAUNCH_S < duration_s == report.stats.forward_s <= costs.launches * LAUNCH_S
