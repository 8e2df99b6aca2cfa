"""Where a model's modules are, and where tensors have to be for them.

With more than one device, or with weights on disk, accelerate's hooks move
inputs and weights at every call. A module that is replaced would lose its hook,
and rows that grow cannot be on disk: this is where both are seen to.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import check_device_map
from torch import nn

STRATEGIES = ("auto", "balanced", "sequential")


class BadDeviceMap(ValueError):
    """The setting names no device that can be used. The message shows it."""


def input_device(module: nn.Module) -> torch.device:
    """Returns the device on which a module takes its input.

    With accelerate's hooks it is the hook's: the weight itself may be elsewhere between calls.
    """
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        device = next(module.parameters()).device
    return torch.device(device)


def read(setting: str) -> str | dict[str, Any] | None:
    """Reads the setting as `from_pretrained` takes it. One device needs no map, and no hooks.

    Raises:
        BadDeviceMap: it is neither a strategy, a device nor a map.
    """
    if setting.startswith("{"):
        return _explicit(setting)
    if setting in STRATEGIES:
        if torch.cuda.device_count() > 1:
            return setting
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(setting, setting)
    return None if setting == "cpu" else {"": setting}


def _explicit(setting: str) -> dict[str, Any]:
    try:
        given = json.loads(setting)
    except ValueError as error:
        raise BadDeviceMap(f"device_map {setting} is not JSON: {error}") from error
    if not isinstance(given, dict) or not given:
        raise BadDeviceMap(f"device_map {setting} is not an object of module to device")
    for device in given.values():
        if device != "disk":
            _check_device(device, setting)
    return given


def _check_device(device: object, setting: str) -> None:
    """Checks that a device is there."""
    try:
        found = torch.device(f"cuda:{device}" if isinstance(device, int) else str(device))
    except RuntimeError as error:
        raise BadDeviceMap(f"device_map {setting}: {device!r} is not a device") from error
    present = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(found.type, 0)
    if (found.index or 0) >= present:
        raise BadDeviceMap(f"device_map {setting}: this machine has no {found}")


def check_covers(model: nn.Module, device_map: Mapping[str, Any]) -> None:
    """Checks that an explicit map names modules of the model, and all of them.

    Args:
        model: the model, which may be on the meta device.
        device_map: module name to device.

    Raises:
        BadDeviceMap: it does not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names of other modules
        try:
            check_device_map(model, dict(device_map))
        except (ValueError, UserWarning) as error:
            raise BadDeviceMap(f"device_map {json.dumps(dict(device_map))}: {error}") from error


def keep_resident(module: nn.Module) -> None:
    """Brings the weights of a module that is offloaded back to where it runs, for good."""
    hook = getattr(module, "_hf_hook", None)
    if not isinstance(hook, AlignDevicesHook) or not hook.offload:
        return
    hook.pre_forward(module)  # loads them
    hook.offload = False  # so that removing it leaves them
    remove_hook_from_module(module)
    add_hook_to_module(module, _without_offload(hook))


def carry_hook(old: nn.Module, new: nn.Module) -> None:
    """Gives a module that replaces another its hook: inputs are moved to where it runs."""
    hook = getattr(old, "_hf_hook", None)
    if isinstance(hook, AlignDevicesHook):
        add_hook_to_module(new, _without_offload(hook))


def _without_offload(hook: AlignDevicesHook) -> AlignDevicesHook:
    return AlignDevicesHook(
        execution_device=hook.execution_device,
        io_same_device=hook.io_same_device,
        skip_keys=hook.skip_keys,
    )
