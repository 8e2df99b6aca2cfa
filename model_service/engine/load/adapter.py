"""LoRA adapters, merged into a model's weights at load by `peft`."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from model_service.engine.layers import masked_logits, placement

WEIGHTS = "adapter_model.safetensors"

# Largest difference between the logits of the model with the adapter unmerged and merged into
# it, relative to the largest of them.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}

PROBE = (1, 2, 3, 5, 8, 13, 21, 34)


def merge(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Adds an adapter to the weights of a model, in place.

    Args:
        model: the model, in evaluation mode.
        folder: the adapter's, checked.

    Raises:
        ValueError: the adapter is not for this model, or cannot be merged into it.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("an adapter needs the whole model in memory, but part of it is on disk")
    _check_vocabulary(model, folder)
    import peft  # takes seconds, for which only those with an adapter wait

    with _quiet():
        adapted = peft.PeftModel.from_pretrained(model, folder)
        adapted.eval()
        _check_keys(adapted, peft.get_peft_model_state_dict(adapted), folder)
        before = _logits(adapted)
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    after, before = masked_logits.comparable(_logits(merged), before)
    difference, scale = float((after - before).abs().max()), float(before.abs().max())
    if not difference <= TOLERANCE[model.dtype] * scale:
        raise ValueError(
            f"merging it changes the results (largest difference {difference:.3g} at a scale of "
            f"{scale:.3g}): it may change a weight that is used twice"
        )
    return cast(PreTrainedModel, merged)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings about what is checked here, and checked more strictly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_keys(adapted: Any, expected: dict[str, Tensor], folder: Path) -> None:
    """Checks that the file has every weight of the adapter, and no others.

    Raises:
        ValueError: it does not; peft would leave the rest at zero.
    """
    shapes = _shapes(folder)
    wanted = {key: list(value.shape) for key, value in expected.items()}
    if shapes != wanted:
        odd = sorted({key for key, _ in {*_items(shapes)} ^ {*_items(wanted)}})
        raise ValueError(f"its weights do not match its configuration, among them {odd[0]}")


def _check_vocabulary(model: PreTrainedModel, folder: Path) -> None:
    """Checks that what the adapter has for embedding and head is for as many ids as they have rows.

    Raises:
        ValueError: it was trained with a vocabulary that had grown.
    """
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if module in layers]
    rows = cast(Tensor, layers[0].weight).shape[0]
    for key, shape in _shapes(folder).items():
        if not any(f".{name}." in key for name in names) or key.endswith(_WITHOUT_IDS):
            continue
        size = shape[1] if key.endswith("lora_embedding_A") else shape[0]
        if size != rows:
            raise ValueError(
                f"it was trained for a vocabulary of {size} ids, and the model has {rows} rows. "
                f"Load the model with transformers, call resize_token_embeddings({size}), save it, "
                "and serve that folder with the tokenizer that came with the adapter"
            )


_WITHOUT_IDS = ("lora_A.weight", "lora_embedding_B")
"""Ends of the keys that have a rank and a width, and no number of ids, in their shapes."""


def _shapes(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def _items(shapes: dict[str, list[int]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(shape)) for key, shape in shapes.items()]


@torch.inference_mode()
def _logits(model: Any) -> Tensor:
    embedding = model.get_input_embeddings()
    ids = torch.tensor([PROBE], device=placement.input_device(embedding))
    ids %= embedding.weight.shape[0]
    return cast(Tensor, model(input_ids=ids, use_cache=False).logits).float().cpu()
