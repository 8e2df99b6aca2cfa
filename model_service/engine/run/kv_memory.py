"""How many pages of keys and values a GPU has room for.

What is left of its memory once the weights are there and the largest step has taken
what it needs. A step is measured: it passes through the unchanged model.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from model_service.engine.layers import placement
from model_service.engine.load.loader import DoesNotFit, LoadedModel
from model_service.engine.run.page_table import PAGE_TOKENS, most_tokens, pages_for
from model_service.engine.schedule.scheduler import MAX_STEP_TOKENS
from model_service.protocol import EngineSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes of a GPU in addition to its weights.

    Attributes:
        token_bytes: a token of KV cache.
        step_bytes: the largest step, while it runs.
    """

    token_bytes: int
    step_bytes: int


def fitting_pages(loaded: LoadedModel, settings: EngineSettings, num_slots: int) -> int | None:
    """Returns the number of pages, on every GPU the same; None where no GPU has keys and values.

    Args:
        loaded: the model, unchanged, on its devices.
        settings: the engine's.
        num_slots: sequences that can be held.

    Raises:
        DoesNotFit: there is no room for one sequence of the whole context.
    """
    wanted = wanted_tokens(settings, loaded)
    needs = measure(loaded)
    if not needs:
        return None
    rooms = {device: _room(device, need, settings) for device, need in needs.items()}
    count = min(rooms[device] // (need.token_bytes * PAGE_TOKENS) for device, need in needs.items())
    if most_tokens(count, num_slots) < min(wanted, loaded.context_length):
        raise DoesNotFit(_sum(loaded, settings, num_slots, needs))
    if most_tokens(count, num_slots) < wanted:
        logger.warning(
            "The GPU has room for %d tokens of KV cache, not for %d: sequences beyond that wait, "
            "and idle sessions lose theirs",
            most_tokens(count, num_slots),
            wanted,
        )
    return min(count, pages_for(wanted, num_slots))


def wanted_tokens(settings: EngineSettings, loaded: LoadedModel) -> int:
    """Returns the tokens of KV cache that are wanted: as set, or full contexts for all."""
    return settings.max_kv_tokens or settings.max_running_sequences * loaded.context_length


@torch.inference_mode()
def measure(loaded: LoadedModel) -> dict[torch.device, Need]:
    """Finds out what a token and a step take on each GPU."""
    device = placement.input_device(loaded.embedding)
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    output = loaded.model(input_ids=token, use_cache=True)
    sizes: Counter[torch.device] = Counter()
    for layer in output.past_key_values.layers:
        for part in (layer.keys, layer.values):
            if part.device.type != "cpu":
                sizes[part.device] += part.numel() * loaded.dtype.itemsize
    del output
    if not sizes:
        return {}
    before = {}
    for device in sizes:
        torch.cuda.reset_peak_memory_stats(device)
        before[device] = torch.cuda.memory_allocated(device)
    loaded.model(
        input_ids=token.expand(1, min(MAX_STEP_TOKENS, loaded.context_length)),
        use_cache=False,
        logits_to_keep=1,
    )
    needs = {
        device: Need(size, torch.cuda.max_memory_allocated(device) - before[device])
        for device, size in sizes.items()
    }
    torch.cuda.empty_cache()
    return needs


def _room(device: torch.device, need: Need, settings: EngineSettings) -> int:
    """Returns the bytes of a GPU that pages may take."""
    free, total = torch.cuda.mem_get_info(device)
    return int(free - (1 - settings.gpu_memory_fraction) * total) - need.step_bytes


def _sum(
    loaded: LoadedModel,
    settings: EngineSettings,
    num_slots: int,
    needs: dict[torch.device, Need],
) -> str:
    """Says how much memory is needed and how much is free."""
    weights = _weight_bytes(loaded.model)
    pages = pages_for(min(wanted_tokens(settings, loaded), loaded.context_length), num_slots)
    lines = [
        f"{device} has {_gib(max(_room(device, need, settings), 0))} for KV cache, beside "
        f"{_gib(weights.get(device, 0))} of weights and {_gib(need.step_bytes)} for a step, and a "
        f"sequence of {loaded.context_length} tokens takes "
        f"{_gib(pages * PAGE_TOKENS * need.token_bytes)}"
        for device, need in needs.items()
    ]
    return (
        f"{type(loaded.model).__name__} does not fit: {'; '.join(lines)}. Lower "
        "--max-context-tokens, raise --gpu-memory-fraction, choose a smaller --dtype, or spread "
        "the model over more devices with --device-map."
    )


def _weight_bytes(model: PreTrainedModel) -> Counter[torch.device]:
    sizes: Counter[torch.device] = Counter()
    for weight in model.parameters():
        sizes[weight.device] += weight.numel() * weight.itemsize
    return sizes


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
