"""Whether a model's weights fit the GPUs that are to hold them: said before they are read.

Otherwise a strategy would leave on the CPU what does not fit, and every step would
carry it over.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Share of a device's free memory that weights may take when they are placed by themselves; the
# rest is for the KV cache.
WEIGHT_SHARE = 0.7

REMEDY = (
    "Choose a smaller --dtype, or more devices; a --device-map that names a place for every module "
    "may leave some of them on the CPU, which is slow."
)


class TooLarge(Exception):
    """The weights do not fit. The message is the sum, and the remedy."""


def for_weights() -> dict[int | str, int] | None:
    """Returns the bytes of each device that weights may take; None without GPUs."""
    if not torch.cuda.is_available():
        return None
    limits: dict[int | str, int] = {
        index: int(torch.cuda.mem_get_info(index)[0] * WEIGHT_SHARE)
        for index in range(torch.cuda.device_count())
    }
    return limits | {"cpu": 1 << 62}


def check_weights(
    skeleton: nn.Module, device_map: str | Mapping[str, Any] | None, itemsize: int
) -> None:
    """Checks that weights fit the GPUs on which they are to be.

    Args:
        skeleton: the model on the meta device.
        device_map: as `from_pretrained` takes it.
        itemsize: bytes of a weight.

    Raises:
        TooLarge: they do not.
    """
    if isinstance(device_map, str):
        sizes = {name: weight.numel() * itemsize for name, weight in skeleton.named_parameters()}
        limits = for_weights() or {}
        gpus = [limit for device, limit in limits.items() if device != "cpu"]
        if sum(sizes.values()) > sum(gpus):
            raise TooLarge(
                f"its weights take {_gib(sum(sizes.values()))}, and may take "
                f"{' + '.join(map(_gib, gpus))} ({WEIGHT_SHARE:.0%} of what is free on each GPU). "
                f"{REMEDY}"
            )
        return
    for device, size in _by_gpu(skeleton, device_map or {}, itemsize).items():
        free = torch.cuda.mem_get_info(device)[0]
        if size > free:
            raise TooLarge(f"{device} has {_gib(free)} free for {_gib(size)} of weights. {REMEDY}")


def check_placed(device_map: Mapping[str, Any]) -> None:
    """Checks that a strategy left nothing on the CPU.

    Args:
        device_map: what it made.

    Raises:
        TooLarge: it did.
    """
    left = [name for name, device in device_map.items() if str(device) in ("cpu", "disk")]
    if left:
        limits = for_weights() or {}
        gpus = [_gib(limit) for device, limit in limits.items() if device != "cpu"]
        raise TooLarge(f"{', '.join(left)} fit no GPU ({', '.join(gpus)} for weights). {REMEDY}")


def _by_gpu(skeleton: nn.Module, device_map: Mapping[str, Any], itemsize: int) -> Counter[Any]:
    """Returns the bytes of weights on each GPU of an explicit map."""
    sizes: Counter[Any] = Counter()
    for name, weight in skeleton.named_parameters():
        holders = [
            module for module in device_map if f"{name}.".startswith(f"{module}.") or not module
        ]
        if holders:
            device = device_map[max(holders, key=len)]
            found = torch.device("cuda", device) if isinstance(device, int) else device
            if str(found).startswith("cuda"):
                sizes[torch.device(found)] += weight.numel() * itemsize
    return sizes


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
