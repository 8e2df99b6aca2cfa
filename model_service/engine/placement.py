"""Where a model's modules are, and where tensors have to be for them."""

import torch
from torch import nn


def input_device(module: nn.Module) -> torch.device:
    """Returns the device on which a module takes its input.

    With accelerate's hooks it is the hook's: the weight itself may be elsewhere between calls.
    """
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        device = next(module.parameters()).device
    return torch.device(device)
