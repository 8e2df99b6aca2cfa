"""The products of a model's linear layers alone, packed as for a step: what a step cannot go below.

Layers that read the same input are multiplied as one, as the engine does, and the head counts with
the rest. Weights are random, of the model's shapes, and each is its own: they are read from memory
as in a step.
"""

import statistics
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from model_service.engine.layers import merged_linear
from model_service.engine.layers.linear import packed_or_none

REPEATS = 15


class Products:
    """The products of one model in one type."""

    def __init__(self, folder: Path | str, dtype: torch.dtype) -> None:
        """Packs random weights."""
        self._dtype = dtype
        found = shapes(folder)
        self._layers = [_layer(outputs, width, dtype) for outputs, width in found]
        self._widths = [width for _, width in found]

    def step_s(self, rows: int) -> float:
        """Returns the median time of all products, one after the other, in seconds."""
        inputs = {width: torch.randn(rows, width).to(self._dtype) for width in self._widths}
        times = []
        with torch.inference_mode():
            for _ in range(REPEATS):
                start = time.perf_counter()
                for layer, width in zip(self._layers, self._widths, strict=True):
                    layer(inputs[width])
                times.append(time.perf_counter() - start)
        return statistics.median(times)


def shapes(folder: Path | str) -> list[tuple[int, int]]:
    """Returns outputs and inputs of each product of a step, in order of modules."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        with merged_linear.observe(model) as siblings:
            model(torch.zeros(1, 2, dtype=torch.int64))
    found = []
    for parent in model.modules():
        layers = {n: c for n, c in parent.named_children() if type(c) is nn.Linear}
        groups = siblings.groups.get(parent, [])
        alone = layers.keys() - {name for group in groups for name in group}
        for names in (*groups, *((name,) for name in alone)):
            outputs = sum(layers[name].out_features for name in names)
            found.append((outputs, layers[names[0]].in_features))
    return found


def _layer(outputs: int, width: int, dtype: torch.dtype) -> nn.Module:
    linear = nn.Linear(width, outputs, bias=False, dtype=dtype)
    return packed_or_none(linear) or linear
