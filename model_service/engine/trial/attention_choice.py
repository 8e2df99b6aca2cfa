"""Chooses what decoding rows attend with on a GPU: the kernel that reads pages where it is right.

K: key-value heads, D: head size.
"""

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from model_service.engine.load.loader import DoesNotFit, Refused, Unavailable
from model_service.engine.run.attention import Attend
from model_service.engine.run.kv_pages import PagedKernel, PagedKVCache
from model_service.engine.run.model_runner import ModelRunner
from model_service.engine.run.page_table import PAGE_TOKENS

logger = logging.getLogger(__name__)

# Largest difference from torch's attention, relative to the largest value.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}

# Places of the trial: both sides of a page, of a block of keys and of a segment.
POSITIONS = (0, 15, 16, 63, 64, 255, 256, 299)
WINDOWS = (None, 8)
GROUPS = 3


def choose(
    runner: ModelRunner, setting: Literal["auto", "triton", "sdpa"], check: Callable[[], None]
) -> None:
    """Lets a runner use the kernel if that passes a trial.

    Args:
        runner: what was found to equal `generate` without it.
        setting: whether to try, and to insist.
        check: compares the runner with `generate`; raises `Refused`.

    Raises:
        AcceleratorError: the device has failed.
        DoesNotFit: the same, or memory is short.
        Unavailable: the kernel was insisted on and did not pass.
    """
    cache = runner.cache
    if not isinstance(cache, PagedKVCache) or setting == "sdpa":
        return
    try:
        # Only here: Triton is not installed everywhere, and takes a second to import.
        from model_service.engine.run.paged_attention import attend

        check_kernel(attend, cache)
        cache.kernel = attend
        check()
    except (DoesNotFit, torch.AcceleratorError):  # would fail without the kernel, too
        raise
    except Exception as error:  # whatever else it is, the model serves without the kernel
        cache.kernel = None
        reason = f"{type(error).__name__}: {error}"
        if setting == "triton":
            raise Unavailable(f"--attention triton does not work here: {reason}") from error
        logger.warning("Decoding rows attend with torch's own attention: %s", reason)


@torch.inference_mode()
def check_kernel(attend: PagedKernel, cache: PagedKVCache) -> None:
    """Compares a kernel with torch's attention, for the shapes and devices of a model's layers.

    Raises:
        Refused: they differ.
    """
    shapes = set()
    for layer in cache.slot_layers:
        assert layer.k is not None
        assert layer.v is not None
        shapes.add((layer.k.data.device, *layer.k.data.shape[2:], layer.v.data.shape[3]))
    for device, heads, key_size, value_size in shapes:
        for window in WINDOWS:
            _check_kernel(attend, device, cache.dtype, (heads, key_size, value_size), window)


def _check_kernel(
    attend: PagedKernel,
    device: torch.device,
    dtype: torch.dtype,
    sizes: tuple[int, int, int],
    window: int | None,
) -> None:
    heads, key_size, value_size = sizes
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    count, pages = len(POSITIONS), -(-(max(POSITIONS) + 1) // PAGE_TOKENS)
    keys = random(count * pages, PAGE_TOKENS, heads, key_size)
    values = random(count * pages, PAGE_TOKENS, heads, value_size)
    order = torch.randperm(count * pages, generator=generator).view(count, pages)
    query, scaling = random(count, heads * GROUPS, key_size), key_size**-0.5
    got = attend(
        query,
        keys,
        values,
        order.int().to(device),
        torch.arange(count).to(device),
        torch.tensor(POSITIONS).to(device),
        longest=max(POSITIONS) + 1,
        scaling=scaling,
        window=window,
        softcap=None,
        sinks=None,
    )
    for row, position in enumerate(POSITIONS):
        first = 0 if window is None else max(0, position + 1 - window)
        own = order[row].to(device)
        seen = [part[own].flatten(0, 1)[None, first : position + 1] for part in (keys, values)]
        expected = Attend(scaling, None, None)(
            query[row].view(1, heads, GROUPS, key_size),
            seen[0].transpose(1, 2),
            seen[1].transpose(1, 2),
            None,
        ).view(-1, value_size)
        difference = float((got[row].float() - expected.float()).abs().max())
        if not difference <= TOLERANCE[dtype] * float(expected.float().abs().max()):
            raise Refused(f"its results differ from torch's by up to {difference:.3g}")
