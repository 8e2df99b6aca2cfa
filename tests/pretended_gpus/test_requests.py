"""Every kind of request on one GPU and over several devices: the answers of the CPU."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.accelerate import _get_device_map

from model_service.engine.load import gpu_memory
from model_service.engine.trial import runner_choice
from model_service.protocol.parameters import PROCESSORS

from .device_maps import ONE, SPLITS, STRATEGIES
from .kinds import KINDS, ask, assert_equal

pytestmark = pytest.mark.pretended_gpu


@pytest.fixture(scope="session")
def expected(on_cpu):
    return ask(on_cpu, KINDS)


@pytest.fixture
def divided(folder, request, gpus):
    """What accelerate makes of a strategy, where a GPU has room for two thirds of the weights."""
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    share = sum(weight.nbytes for weight in skeleton.parameters()) * 2 // 3
    gpus |= dict.fromkeys(gpus, int(share / gpu_memory.WEIGHT_SHARE))
    return _get_device_map(skeleton, request.param, gpu_memory.for_weights(), None)


def test_every_processor_is_among_the_kinds():
    asked = {name for kind in KINDS.values() for name in kind}
    assert {row.name for row in PROCESSORS} - asked == set()


def test_every_kind_of_request_is_answered_as_on_the_cpu(served, expected):
    engine = served(ONE)
    assert engine.info.execution_path == "fast"
    answers = ask(engine, KINDS)
    assert answers["sampled, all scores"].numbers
    assert_equal(answers, expected)


@pytest.mark.filterwarnings("ignore:You are calling .generate")  # Hugging Face's, about hooks
@pytest.mark.parametrize("device_map", SPLITS)
def test_a_model_over_several_devices_takes_the_fast_path_and_answers_the_same(
    served, expected, device_map
):
    names = ("greedy", "sampled, all scores", "guidance, sampled", "beams", "prompt lookup")
    engine = served(device_map)
    assert engine.info.execution_path == "fast"
    assert engine.info.device_map == device_map
    assert_equal(ask(engine, {name: KINDS[name] for name in names}), expected)


@pytest.mark.filterwarnings("ignore:You are calling .generate")
@pytest.mark.parametrize("divided", STRATEGIES, indirect=True)
def test_a_model_that_a_strategy_divides_takes_the_fast_path(
    divided, served, free_bytes, expected, monkeypatch
):
    assert set(divided.values()) == {0, 1}
    free_bytes |= dict.fromkeys(free_bytes, 2**37)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # weights are read on the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine = served({name: f"cuda:{index}" for name, index in divided.items()})
    assert engine.info.execution_path == "fast"
    names = ("greedy", "sampled, all scores")
    assert_equal(ask(engine, {name: KINDS[name] for name in names}), expected)


def test_the_compat_path_answers_the_same(start, expected, monkeypatch):
    monkeypatch.setattr(runner_choice, "fast_obstacle", lambda _: "it is switched off")
    engine = start(ONE)
    assert engine.info.execution_path == "compat"
    names = ("sampled, all scores", "prompt scores")
    for extends in (True, False):  # parts of a prompt that passes as a whole have no rows yet
        engine.engine._runner.extends = extends
        assert_equal(ask(engine, {name: KINDS[name] for name in names}), expected)
