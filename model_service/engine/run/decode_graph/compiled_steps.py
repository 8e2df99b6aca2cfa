"""Compiled graphs in use: bound to the weights and the KV cache of the running model.

T: tokens of the step, H: hidden size.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_service.engine.layers.linear import PackedLinear
from model_service.engine.layers.merged_linear import MergedLinear
from model_service.engine.layers.panels import Panels
from model_service.engine.run.decode_graph.compiler import FILE
from model_service.engine.run.decode_graph.recipe import Product
from model_service.engine.run.kv_cache import KVCache

# Tokens from which threads share what lies between the operators. Below, they would wait for each
# other at every turn.
SHARED_TOKENS = 64


class CompiledSteps:
    """The graphs of one decoder. Operators are loaded already."""

    def __init__(self, decoder: nn.Module, cache: KVCache) -> None:
        """Tells the operators what products and layers there are."""
        self._decoder = decoder
        self._graphs: dict[str, Any] = {}
        self._model: int = torch.ops.lockstep.new_model()
        for _, layer in products(decoder):
            _add(self._model, layer)
        for slots in cache.slot_layers:
            assert slots.k is not None
            assert slots.v is not None
            torch.ops.lockstep.add_layer(self._model, slots.k.data, slots.v.data)

    def load(self, graph: str, folder: Path) -> None:
        """Loads a graph and gives it the weights it asks for, without a copy.

        Raises:
            KeyError: it asks for a weight that the decoder does not have.
            RuntimeError: a file or a weight is not what the graph was made for.
        """
        loader = torch._C._aoti.AOTIModelPackageLoader(str(folder / FILE), "model", True, 1, -1)
        weights = _weights(self._decoder)
        constants = {name: weights[name] for name in loader.get_constant_fqns()}
        loader.load_constants(constants, False, True, True, False)
        self._graphs[graph] = loader

    def run(self, graph: str, embeds: Tensor, positions: Tensor, slots: Tensor) -> Tensor:
        """Runs a step.

        Args:
            graph: a graph that was loaded.
            embeds: `[1, T, H]`.
            positions: `[1, T]` int64.
            slots: `[T]` int64.

        Returns:
            `[1, T, H]` last hidden states. Keys and values are in the cache.
        """
        torch.ops.lockstep.begin(self._model, slots.numel() < SHARED_TOKENS)
        try:
            hidden: Tensor = self._graphs[graph].boxed_run([embeds, positions, slots])[0]
        finally:
            torch.ops.lockstep.end()
        return hidden

    def close(self) -> None:
        """Forgets weights and cache."""
        self._graphs.clear()
        torch.ops.lockstep.free_model(self._model)


def _add(model: int, layer: PackedLinear) -> None:
    """Makes the product of a layer the next one of a model."""
    if isinstance(layer.panels, Panels):
        layer.panels.add_to(model)
        return
    weight = layer.weight.detach() if layer.plain_rows and layer.weight is not None else None
    torch.ops.lockstep.add_reordered(model, layer.packed, weight, layer.bias, layer.plain_rows)


def _weights(decoder: nn.Module) -> dict[str, Tensor]:
    """Names tensors as graphs do. Not kept: an embedding that grew would be held twice."""
    tensors = [*decoder.named_parameters(), *decoder.named_buffers()]
    return {f"decoder.{name}": tensor.detach() for name, tensor in tensors}


def products(decoder: nn.Module) -> list[tuple[Product, PackedLinear]]:
    """Finds the packed products of a decoder, merged ones once, in the order of its modules."""
    found: dict[int, tuple[PackedLinear, list[tuple[str, PackedLinear | MergedLinear]]]] = {}
    for name, module in decoder.named_modules():
        if isinstance(module, PackedLinear | MergedLinear):
            packed = module if isinstance(module, PackedLinear) else module.product.merged
            assert isinstance(packed, PackedLinear)
            found.setdefault(id(packed), (packed, []))[1].append((name, module))
    result = []
    for packed, members in found.values():
        members.sort(key=lambda member: getattr(member[1], "index", 0))
        names = [name for name, _ in members]
        result.append((Product(names, [layer.out_features for _, layer in members]), packed))
    return result
