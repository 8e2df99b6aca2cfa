"""How many slots of keys and values there are: one per sequence, or as many as a GPU has room for.

In a machine's own memory a slot costs what is written to it (`kv_cache.py`), so
there is one for every sequence there may be. On a GPU it is set aside as a whole
when the first step runs; the memory that the weights leave free decides.
"""

import logging
from collections import Counter

import torch
from transformers import PreTrainedModel

from model_service.engine.layers import placement
from model_service.engine.load.loader import DoesNotFit, LoadedModel
from model_service.engine.schedule import sequence_cache
from model_service.protocol import EngineSettings

logger = logging.getLogger(__name__)

# Share of the memory left free by the weights that slots may take. The rest is for a step.
SLOT_SHARE = 0.8


def fitting(loaded: LoadedModel, settings: EngineSettings) -> int:
    """Returns the number of slots.

    Args:
        loaded: the model, unchanged, on its devices.
        settings: the engine's.

    Raises:
        DoesNotFit: memory is not sufficient for as many as a server needs.
    """
    wanted = sequence_cache.num_slots(settings)
    by_device = {
        device: size * loaded.context_length for device, size in bytes_per_token(loaded).items()
    }
    if not by_device:
        return wanted
    if settings.max_kv_tokens:
        most = -(-settings.max_kv_tokens // loaded.context_length)
        wanted = max(min(wanted, most), sequence_cache.MIN_SLOTS)
    torch.cuda.empty_cache()
    free = {device: torch.cuda.mem_get_info(device)[0] for device in by_device}
    count = min(int(free[device] * SLOT_SHARE) // size for device, size in by_device.items())
    if count < sequence_cache.MIN_SLOTS:
        raise DoesNotFit(_sum(loaded, by_device, free))
    if count < wanted:
        logger.warning(
            "%d sequences of %d tokens fit in addition to the weights, not %d; others wait, and "
            "idle sessions lose their KV cache. A lower --max-context-tokens makes room for more",
            count,
            loaded.context_length,
            wanted,
        )
    return min(count, wanted)


@torch.inference_mode()
def bytes_per_token(loaded: LoadedModel) -> dict[torch.device, int]:
    """Finds out what a token takes on each GPU, by passing one through the unchanged model."""
    if loaded.is_on_cpu:
        return {}
    device = placement.input_device(loaded.embedding)
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    output = loaded.model(input_ids=token, use_cache=True)
    sizes: Counter[torch.device] = Counter()
    for layer in output.past_key_values.layers:
        for part in (layer.keys, layer.values):
            if part.device.type != "cpu":
                sizes[part.device] += part.numel() * loaded.dtype.itemsize
    return dict(sizes)


def _sum(
    loaded: LoadedModel, by_device: dict[torch.device, int], free: dict[torch.device, int]
) -> str:
    """Says how much memory is needed and how much is free."""
    weights = _weight_bytes(loaded.model)
    lines = [
        f"{device} has {_gib(free[device])} free, with {_gib(weights.get(device, 0))} of weights, "
        f"and each of at least {sequence_cache.MIN_SLOTS} sequences of {loaded.context_length} "
        f"tokens takes {_gib(size)} of KV cache (together at most {SLOT_SHARE:.0%} of what is free)"
        for device, size in by_device.items()
    ]
    return (
        f"{type(loaded.model).__name__} does not fit: {'; '.join(lines)}. Lower "
        "--max-context-tokens, choose a smaller --dtype, or spread the model over more devices "
        "with --device-map."
    )


def _weight_bytes(model: PreTrainedModel) -> Counter[torch.device]:
    sizes: Counter[torch.device] = Counter()
    for weight in model.parameters():
        sizes[weight.device] += weight.numel() * weight.itemsize
    return sizes


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
