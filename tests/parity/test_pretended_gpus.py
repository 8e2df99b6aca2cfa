"""The whole engine on GPUs that are pretended: no devices meet, and results are those of the CPU.

There is no GPU where these run. They show that every tensor is made where it is used, and what
becomes of a model that does not fit.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from model_service.engine.load import loader
from model_service.engine.load.loader import DoesNotFit
from model_service.engine.run import kv_memory, model_runner
from model_service.engine.run.page_table import PAGE_TOKENS, pages_for
from model_service.engine.trial import runner_choice
from model_service.protocol import (
    GrowVocabulary,
    NewRow,
    OpenSession,
    SequenceSpec,
    StepRow,
    StepSession,
    VocabularyGrown,
)
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_arguments import (
    GreenListWatermark,
    ProcessorSpec,
    SynthIdWatermark,
)
from tests.checkpoint_factory import CONTEXT_LENGTH, make_checkpoint
from tests.engine_harness import InprocEngine, array
from tests.fakes import pretend_device

PROMPTS = [[3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12], [5], [9, 8, 7]]
STEP_BYTES = 3 << 20
GIB = 2**30

FULL = ScoreSelection(amount="full", logits=True, scores=True)
TOP = ScoreSelection(amount="top_k", top_k=5, logits=True, rank=True, entropy=True, logsumexp=True)

ONE = {"": "cuda:0"}
# As `auto`, `balanced` and `sequential` split a model: the norm is where the last layer is.
TWO = {
    "model.embed_tokens": "cuda:0",
    "model.layers.0": "cuda:0",
    "model.layers.1": "cuda:0",
    "model.layers.2": "cuda:1",
    "model.norm": "cuda:1",
    "model.rotary_emb": "cuda:0",
    "lm_head": "cuda:1",
}
FIRST_AND_LAST = TWO | {"model.layers.1": "cuda:1", "model.norm": "cuda:0", "lm_head": "cuda:0"}
WITH_CPU = (
    TWO
    | {"model.embed_tokens": "cpu", "model.layers.2": "cpu", "model.norm": "cpu"}
    | {"lm_head": "cuda:0"}
)
SPLITS = {"two": TWO, "first-and-last": FIRST_AND_LAST, "with-the-CPU": WITH_CPU}

KINDS = {
    "greedy": {},
    "greedy, with all scores": {"selection": FULL},
    "greedy, with the best scores": {"selection": TOP},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "exclusions": {"no_repeat_ngram_size": 2, "suppress_tokens": (3, 4)},
    "allowed ids": {"allowed_token_ids": (5, 6, 7)},
    "invalid values removed": {"remove_invalid_values": True},
    "sampled": {"do_sample": True},
    "top_k": {"do_sample": True, "temperature": 0.7, "top_k": 50},
    "top_p": {"do_sample": True, "top_p": 0.9, "renormalize_logits": True},
    "min_p": {"do_sample": True, "min_p": 0.1},
    "typical_p": {"do_sample": True, "typical_p": 0.9},
    "cutoffs": {"do_sample": True, "eta_cutoff": 0.01, "epsilon_cutoff": 0.01},
    "top_h": {"do_sample": True, "top_h": 0.4},
    "top_n_sigma": {"do_sample": True, "top_n_sigma": 1.0},
    "sampled, with all scores": {"do_sample": True, "selection": FULL},
    "sampled, with the best scores": {"do_sample": True, "selection": TOP},
    "drawn as torch": {"do_sample": True, "seed_mode": "torch", "selection": FULL},
    "guidance": {"guidance_scale": 1.5},
    "guidance, sampled": {"guidance_scale": 1.5, "do_sample": True},
    "beams": {"num_beams": 2, "selection": FULL},
    "beams, sampled": {"num_beams": 2, "do_sample": True},
    "a pipeline": {
        "do_sample": True,
        "processors": (
            ProcessorSpec("temperature", '{"temperature": 0.7}'),
            ProcessorSpec("top_k", '{"top_k": 20}'),
        ),
    },
    "a green list": {"do_sample": True, "green_list_watermark": GreenListWatermark()},
    "SynthID": {
        "do_sample": True,
        "synth_id_watermark": SynthIdWatermark(ngram_len=3, keys=(654, 400, 836)),
    },
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
    "prompt scores": {"repetition_penalty": 1.2, "prompt_selection": FULL},
    "a trace": {
        "repetition_penalty": 1.2,
        "selection": ScoreSelection(amount="full", logits=True, processor_trace=True),
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("pretended") / "llama", "llama")


@pytest.fixture(scope="module")
def on_cpu(folder: Path) -> InprocEngine:
    return InprocEngine(folder, max_running_sequences=4, max_session_rows=8)


@pytest.fixture
def free_bytes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free on the devices, which a test may change."""
    free = {"cuda:0": 139 * GIB, "cuda:1": 139 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[str(device)], 139 * GIB))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: GIB + STEP_BYTES)
    return free


@pytest.fixture
def start(folder: Path, free_bytes: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    """Starts engines whose model is on pretended devices."""
    load = loader._load_weights

    def started(device_map: dict[str, str], **settings: object) -> InprocEngine:
        def placed(folder, settings):
            model = load(folder, settings)
            if device_map == ONE:
                pretend_device.put(model, "cuda:0")
                model.hf_device_map = ONE
            else:
                pretend_device.split(model, device_map)
            return model

        monkeypatch.setattr(loader, "_load_weights", placed)
        return InprocEngine(
            folder, **{"max_running_sequences": 4, "max_session_rows": 8} | settings
        )

    with pretend_device.pretending():
        yield started


def test_devices_that_meet_are_refused_as_by_cuda():
    with pretend_device.pretending():
        first = torch.ones(3, device="cuda:0")
        second = torch.ones(3, device="cuda:1")
        index = torch.tensor([0, 2])
        assert first.device == torch.device("cuda:0")
        assert (first + 1).device == first.device
        assert first[index].tolist() == [1, 1]
        for mixed in (
            lambda: first + second,
            lambda: first + torch.ones(3),
            lambda: first[index.to("cuda:1")],
            lambda: torch.ones(3)[index.to("cuda:0")],
            lambda: first.gather(0, index),
        ):
            with pytest.raises(pretend_device.MixedDevices):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            first.numpy()
        first[:2] = torch.zeros(2)  # a copy, which may cross
        assert first.cpu().numpy().tolist() == [0, 0, 1]


def compare(engine: InprocEngine, on_cpu: InprocEngine, kinds: Iterable[str]) -> None:
    assert engine.info.execution_path == "fast"
    for name in kinds:
        expected = on_cpu.generate(PROMPTS, max_new_tokens=5, **KINDS[name])
        assert engine.generate(PROMPTS, max_new_tokens=5, **KINDS[name]) == expected, name


def test_every_kind_of_request_is_answered_as_on_the_cpu(start, on_cpu):
    compare(start(ONE), on_cpu, KINDS)


@pytest.mark.filterwarnings("ignore:You are calling .generate")  # Hugging Face's, about hooks
@pytest.mark.parametrize("device_map", SPLITS.values(), ids=SPLITS)
def test_a_model_over_several_devices_takes_the_fast_path_and_answers_the_same(
    start, on_cpu, device_map
):
    kinds = ("greedy", "sampled, with all scores", "guidance, sampled", "beams", "prompt lookup")
    engine = start(device_map)
    compare(engine, on_cpu, kinds)
    size = engine.info.vocabulary_size
    row = NewRow(size, "copy", generable=False, copy_token_id=PROMPTS[0][-1])
    engine.handle(GrowVocabulary(1, [row], request_id=99))
    (event,) = engine.drain()
    assert isinstance(event, VocabularyGrown)
    prompt, same = PROMPTS[0], [*PROMPTS[0][:-1], size]
    expected = on_cpu.generate([prompt], max_new_tokens=5)
    assert engine.generate([same], max_new_tokens=5, revision=1) == expected


def test_the_compat_path_answers_the_same(start, on_cpu, monkeypatch):
    monkeypatch.setattr(runner_choice, "fast_obstacle", lambda _: "it is switched off")
    engine = start(ONE)
    assert engine.info.execution_path == "compat"
    for name in ("greedy", "sampled, with all scores"):
        expected = on_cpu.generate(PROMPTS, max_new_tokens=5, **KINDS[name])
        assert engine.generate(PROMPTS, max_new_tokens=5, **KINDS[name]) == expected, name
    runner = engine.engine._runner
    runner.extends = False  # parts of a prompt that passes as a whole have no rows yet
    assert runner._ahead(PROMPTS[0], []).device == runner._ahead(PROMPTS[0], [3]).device


def rows_of(engine: InprocEngine) -> list[np.ndarray]:
    """Opens a session, steps it, and returns the logits and scores of its rows."""
    config = engine.config(repetition_penalty=1.3)
    specs = [SequenceSpec(prompt, seed=3) for prompt in PROMPTS]
    engine.handle(OpenSession("s", specs, config, 0, max_length=30, selection=FULL, request_id=50))
    opened = engine.drain()
    steps = [StepRow([token_id], None) for token_id in (5, 6, 7)]
    engine.handle(StepSession("s", steps, FULL, sample=True, request_id=51))
    answers = [*opened, *engine.drain()]
    positions = [row.scores[-1] for answer in answers for row in answer.rows]
    return [array(row) for each in positions for row in (each.logits, each.scores)]


def test_sessions_answer_as_on_the_cpu(start, on_cpu):
    expected = rows_of(on_cpu)
    assert len(expected) == 2 * 2 * len(PROMPTS)
    for row, same in zip(rows_of(start(TWO)), expected, strict=True):
        np.testing.assert_allclose(row, same, rtol=1e-4, atol=1e-5)


# --- Memory ---------------------------------------------------------------------------------------


def page_bytes(engine: InprocEngine) -> int:
    """Bytes of a page of KV cache, over all layers."""
    return engine.info.kv_bytes_per_token * PAGE_TOKENS


def test_what_a_token_and_a_step_take_is_found_out_by_device(start, on_cpu, monkeypatch):
    found = []
    original = kv_memory.measure

    def noted(loaded: loader.LoadedModel) -> dict[torch.device, kv_memory.Need]:
        found.append(original(loaded))
        return found[-1]

    monkeypatch.setattr(kv_memory, "measure", noted)
    start(TWO)
    total = on_cpu.info.kv_bytes_per_token
    assert found == [
        {
            torch.device("cuda:0"): kv_memory.Need(total * 2 // 3, STEP_BYTES),
            torch.device("cuda:1"): kv_memory.Need(total // 3, STEP_BYTES),
        }
    ]


@pytest.mark.parametrize("device_map", [ONE, TWO], ids=["one", "two"])
def test_there_are_as_many_pages_as_fit_beside_weights_and_a_step(
    start, on_cpu, free_bytes, device_map, caplog
):
    page = page_bytes(on_cpu) if device_map == ONE else page_bytes(on_cpu) * 2 // 3
    reserve = int(0.1 * 139 * GIB) + 1 + STEP_BYTES
    slots = 4 + 8
    count = pages_for(2 * CONTEXT_LENGTH, slots)
    free_bytes["cuda:0"] = reserve + int((count + 0.5) * page)
    engine = start(device_map, max_running_sequences=4, max_session_rows=8)
    cache = engine.engine._runner.cache
    assert cache.num_slots == slots
    assert cache.table.num_pages == count
    assert 2 * CONTEXT_LENGTH <= engine.info.kv_total_tokens < 3 * CONTEXT_LENGTH
    assert "has room for" in caplog.text
    prompts = [[token_id, 5] for token_id in range(10, 19)]  # more than run at once
    assert engine.generate(prompts, max_new_tokens=5) == on_cpu.generate(prompts, max_new_tokens=5)


def test_a_part_of_a_gpu_is_left_to_others(start, on_cpu, free_bytes):
    free_bytes["cuda:0"] = 40 * GIB
    with pytest.raises(DoesNotFit, match="--gpu-memory-fraction"):
        start(ONE, gpu_memory_fraction=0.5)


def test_a_bound_on_kv_cache_bounds_what_is_set_aside(start):
    engine = start(ONE, max_running_sequences=8, max_kv_tokens=2 * CONTEXT_LENGTH)
    cache = engine.engine._runner.cache
    assert engine.info.kv_total_tokens == 2 * CONTEXT_LENGTH
    assert cache.table.num_pages == pages_for(2 * CONTEXT_LENGTH, cache.num_slots)


def test_a_model_that_does_not_fit_is_refused_with_the_sum(start, free_bytes):
    free_bytes["cuda:1"] = int(0.1 * 139 * GIB) + STEP_BYTES
    with pytest.raises(DoesNotFit) as caught:
        start(TWO)
    said = str(caught.value)
    assert "cuda:1 has 0.00 GiB for KV cache" in said
    assert "of weights" in said
    assert "for a step" in said
    assert f"sequence of {CONTEXT_LENGTH} tokens takes" in said
    assert "--max-context-tokens" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "--max-running-sequences"),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), "device failed"),
    ],
)
def test_no_failure_of_a_device_leads_to_the_compat_path(start, monkeypatch, error, said):
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(model_runner.ModelRunner, "_call", fail)
    monkeypatch.setattr(runner_choice, "_compat", None)
    with pytest.raises(DoesNotFit, match=said):
        start(ONE)
