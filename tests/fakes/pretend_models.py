"""Models on pretended GPUs: all of a model on one, or its modules on several."""

from collections.abc import Mapping

import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from transformers import PreTrainedModel

from tests.fakes.pretend_device import PretendTensor, gpu

WHOLE = ""
"""The module that is all of a model."""


def place(model: PreTrainedModel, device_map: Mapping[str, str]) -> None:
    """Places a model as `from_pretrained` does: without hooks where it is on one device whole."""
    if WHOLE in device_map:
        put(model, device_map[WHOLE])
        model.hf_device_map = dict(device_map)
    else:
        split(model, device_map)


def put(model: torch.nn.Module, device: object) -> None:
    """Moves all weights and buffers to a pretended GPU; those that were shared stay so."""
    place = gpu(device)
    assert place is not None
    moved: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and not isinstance(weight, PretendTensor):
                new = torch.nn.Parameter(PretendTensor(weight.data, place), requires_grad=False)
                module._parameters[name] = moved.setdefault(id(weight), new)
        for name, buffer in module._buffers.items():
            if buffer is not None and not isinstance(buffer, PretendTensor):
                module._buffers[name] = PretendTensor(buffer, place)


def split(model: PreTrainedModel, device_map: Mapping[str, str]) -> None:
    """Places modules as `dispatch_model` does, with accelerate's own hooks."""
    devices = {name: torch.device(device) for name, device in device_map.items()}
    main = next(device for device in devices.values() if device.type == "cuda")
    kept = {name for name, device in devices.items() if device.type == "cpu"}
    for name in devices.keys() - kept:
        put(model.get_submodule(name), devices[name])
    attach_align_device_hook_on_blocks(
        model,
        execution_device={"": main} | {n: main if n in kept else d for n, d in devices.items()},
        offload={name: name in kept for name in devices},
        weights_map={
            name: weight
            for name, weight in model.state_dict().items()
            if not isinstance(weight, PretendTensor)
        },
        skip_keys=model._skip_keys_device_placement,
        tied_params_map={},
    )
    model.hf_device_map = dict(device_map)
