import json

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn

from model_service.engine.layers import placement
from model_service.engine.layers.placement import BadDeviceMap


@pytest.mark.parametrize("setting", ["auto", "balanced", "sequential", "cpu"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU these place weights on it")
def test_one_device_needs_no_map(setting):
    assert placement.read(setting) is None


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("nonsense", "is not a device"),
        ("cuda:99", "this machine has no cuda:99"),
        ("meta", "this machine has no meta"),
        ('{"": "cuda:99"}', "this machine has no cuda:99"),
        ('{"": 99}', "this machine has no cuda:99"),
        ('{"": [1]}', "is not a device"),
        ("{bad", "is not JSON"),
        ("{}", "is not an object"),
    ],
)
def test_a_setting_that_names_no_device_is_refused_and_shown(setting, reason):
    with pytest.raises(BadDeviceMap) as caught:
        placement.read(setting)
    assert reason in str(caught.value)
    assert setting in str(caught.value)


def test_an_explicit_map_is_taken_as_it_is():
    given = {"embed": "cpu", "layers": "disk", "head": "cpu:0"}
    assert placement.read(json.dumps(given)) == given


@pytest.mark.parametrize("device_map", [{"0": "cpu"}, {"0": "cpu", "1": "cpu", "2": "cpu"}])
def test_a_map_that_does_not_cover_the_model_or_names_other_modules_is_refused(device_map):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    placement.check_covers(model, {"0": "cpu", "1": "disk"})
    placement.check_covers(model, {"": "cpu"})
    with pytest.raises(BadDeviceMap) as caught:
        placement.check_covers(model, device_map)
    assert json.dumps(device_map) in str(caught.value)


def test_a_module_takes_its_input_where_its_hook_runs_it():
    layer = nn.Linear(2, 2)
    assert placement.input_device(layer) == torch.device("cpu")
    add_hook_to_module(layer, AlignDevicesHook(execution_device="meta"))
    assert placement.input_device(layer) == torch.device("meta")


def test_a_module_that_replaces_another_gets_its_inputs_moved_too():
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    add_hook_to_module(old, AlignDevicesHook(execution_device="meta"))
    placement.carry_hook(old, new)
    assert new(torch.ones(1, 2)).device == torch.device("meta")


def test_a_module_on_disk_is_brought_back_for_good():
    layer = nn.Linear(2, 2)
    weight = layer.weight.detach().clone()
    stored = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    add_hook_to_module(
        layer, AlignDevicesHook(execution_device="cpu", offload=True, weights_map=stored)
    )
    assert layer.weight.is_meta
    placement.keep_resident(layer)
    assert torch.equal(layer.weight, weight)
    layer(torch.ones(1, 2))
    assert torch.equal(layer.weight, weight), "a call must not take it away again"


def test_a_module_in_place_is_left_alone():
    layer = nn.Linear(2, 2)
    add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))
    hook = layer._hf_hook
    placement.keep_resident(layer)
    assert layer._hf_hook is hook
