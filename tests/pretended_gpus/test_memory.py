"""What becomes of a model that does not fit, and of a step for which memory is not sufficient."""

import pytest
import torch

from model_service.engine import process
from model_service.engine.layers import merged_linear
from model_service.engine.load import gpu_memory, loader
from model_service.engine.load.loader import DoesNotFit
from model_service.engine.run import kv_memory, model_runner
from model_service.engine.run.page_table import PAGE_TOKENS, pages_for
from model_service.engine.trial import runner_choice
from tests.checkpoint_factory import CONTEXT_LENGTH
from tests.engine_harness import InprocEngine, tokens_of

from .conftest import GIB, STEP_BYTES
from .device_maps import ONE, TWO

pytestmark = pytest.mark.pretended_gpu

MOST_TOKENS = 16
"""Tokens of a step that memory is sufficient for."""


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


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("cuda:0", "cuda:0 has 0.00 GiB free for 0.00 GiB of weights"),
        ("auto", "(70% of what is free on each GPU)"),
        ("sequential", "(70% of what is free on each GPU)"),
        ('{"model": 1, "lm_head": "cpu"}', "cuda:1 has 0.00 GiB free"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    folder, gpus, monkeypatch, setting, said
):
    gpus |= dict.fromkeys(gpus, 100)
    monkeypatch.setattr(loader.AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(DoesNotFit) as caught:
        InprocEngine(folder, device_map=setting)
    assert said in str(caught.value)
    assert "--dtype" in str(caught.value)


def test_a_strategy_that_leaves_layers_on_the_cpu_is_refused():
    with pytest.raises(gpu_memory.TooLarge, match=r"model.layers.1, lm_head fit no GPU"):
        gpu_memory.check_placed({"model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"})


def test_memory_that_runs_out_while_weights_are_read_is_not_a_broken_checkpoint(
    folder, monkeypatch
):
    def read(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loader.AutoModelForCausalLM, "from_pretrained", read)
    with pytest.raises(DoesNotFit, match="does not fit: CUDA out of memory"):
        InprocEngine(folder)


def test_memory_that_runs_out_in_a_step_ends_the_row_that_took_it(served, on_cpu, monkeypatch):
    engine = served(ONE)
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    call = model_runner.ModelRunner._call

    def limited(self, context, graph, ids, positions, slots, targets):
        if len(ids) > MOST_TOKENS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, context, graph, ids, positions, slots, targets)

    prompts = [[3, 5, 7], [9, 8] * MOST_TOKENS, [5, 6, 7, 8]]
    expected = on_cpu.generate(prompts, max_new_tokens=5)
    monkeypatch.setattr(model_runner.ModelRunner, "_call", limited)
    request_id = engine.submit(prompts, max_new_tokens=5)
    events = engine.drain()
    tokens = tokens_of(events, request_id, 3)
    assert [tokens[0], tokens[2]] == [expected[0], expected[2]]
    assert tokens[1] == []
    (failure,) = (e.finish.failure for e in events if getattr(e, "row", None) == 1 and e.finish)
    assert failure.error == "MemoryExhausted"
    assert emptied
    assert engine.generate([prompts[0]], max_new_tokens=5) == expected[:1]


def test_nothing_is_packed_for_the_cpu_while_a_gpu_has_the_weights(start, monkeypatch):
    threads = []
    monkeypatch.setattr(process.torch, "set_num_threads", threads.append)
    monkeypatch.setattr(merged_linear, "_concatenated", None)
    engine = start(ONE, threads=64)
    assert engine.info.execution_path == "fast"
    assert engine.engine._runner.num_merged == 0
    assert process.MOST_GPU_THREADS in threads
    assert 64 not in threads
