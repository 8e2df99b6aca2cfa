"""Linear layers that read the same input, multiplied as one.

Query, key and value projections read one tensor, and so do the gate and up
projections of a feed-forward layer. One product of all their rows is quicker
than one product each. Which layers those are is observed while Hugging Face's
code runs (`observe`), so it holds for unknown models, too, and it is
checked at every call: a layer that is called with another tensor than its
siblings gets a product of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_service.engine.layers.linear import is_plain, packed_or_none, same_products


@dataclass(slots=True)
class _Calls:
    """Which layers of one module were called with which input, in order."""

    last_input: Tensor | None = None
    runs: list[list[str]] = field(default_factory=list)


class SiblingLayers:
    """Groups of linear layers of one module that were always called together.

    Attributes:
        groups: module to groups of names of its layers, each in order of calls.
    """

    def __init__(self) -> None:
        self._calls: dict[nn.Module, _Calls] = {}

    def note(self, parent: nn.Module, name: str, x: Tensor) -> None:
        """Records a call of the layer `name` of `parent` with input `x`, `[.., in_features]`.

        Only the identity of `x` counts, whatever its dtype.
        """
        calls = self._calls.setdefault(parent, _Calls())
        if calls.last_input is not x:
            calls.last_input = x
            calls.runs.append([])
        calls.runs[-1].append(name)

    @property
    def groups(self) -> dict[nn.Module, list[tuple[str, ...]]]:
        found = {parent: _groups(calls.runs) for parent, calls in self._calls.items()}
        return {parent: groups for parent, groups in found.items() if groups}


def _groups(runs: list[list[str]]) -> list[tuple[str, ...]]:
    """Keeps the runs of different layers of which none is ever called otherwise."""
    distinct = {tuple(run) for run in runs}
    names = [name for run in distinct for name in run]
    return sorted(
        run for run in distinct if len(run) > 1 and all(names.count(name) == 1 for name in run)
    )


@contextmanager
def observe(model: nn.Module) -> Iterator[SiblingLayers]:
    """Watches the calls of a model's plain linear layers while the block runs."""
    siblings = SiblingLayers()
    hooks = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear:

                def note(
                    module: nn.Module,
                    inputs: tuple[Tensor, ...],
                    parent: nn.Module = parent,
                    name: str = name,
                ) -> None:
                    siblings.note(parent, name, inputs[0])

                hooks.append(child.register_forward_pre_hook(note))
    try:
        yield siblings
    finally:
        for hook in hooks:
            hook.remove()


class SharedProduct:
    """The one product of merged layers, kept until each of them has taken its part."""

    def __init__(self, merged: nn.Module, sizes: list[int]) -> None:
        """Cuts the results of `merged` into parts of `sizes`."""
        self.merged = merged
        self._sizes = sizes
        self._input: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def take(self, index: int, x: Tensor) -> Tensor:
        """Returns the part of layer `index`, computing all parts for a new input.

        Args:
            index: of the layer among its siblings.
            x: `[.., in_features]` in the model's dtype.

        Returns:
            `[.., out_features]` of the layer, in the same dtype.
        """
        part = self._parts[index] if self._input is x else None
        if part is None:
            self._input = x
            self._parts = [*self.merged(x).split(self._sizes, -1)]
            part = self._parts[index]
            assert part is not None
        self._parts[index] = None
        if not any(one is not None for one in self._parts):
            self._input = None  # no tensor of a step outlives it
        return part


class MergedLinear(nn.Module):
    """One of several layers whose product is computed together."""

    def __init__(self, linear: nn.Linear, product: SharedProduct, index: int) -> None:
        """Stands in for a layer.

        Args:
            linear: the layer.
            product: of this layer and its siblings.
            index: its place among them.
        """
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight: Tensor | None = linear.weight
        self.bias = linear.bias
        self.product = product
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[.., in_features]` to `[.., out_features]`, in the dtype of the weight."""
        return self.product.take(self.index, x)


def merge(siblings: SiblingLayers) -> int:
    """Replaces groups of layers by merged ones, in place, where the results are equal.

    Returns:
        How many layers were replaced.
    """
    count = 0
    for parent, groups in siblings.groups.items():
        for names in groups:
            merged = merged_or_none([getattr(parent, name) for name in names])
            for name, layer in zip(names, merged or [], strict=False):
                setattr(parent, name, layer)
                count += 1
    return count


def merged_or_none(layers: list[nn.Linear]) -> list[MergedLinear] | None:
    """Returns merged layers that were seen to equal the plain ones, or None."""
    if not all(is_plain(layer) for layer in layers):
        return None
    if layers[0].weight.device.type != "cpu":  # nothing would be packed
        return None
    if len({(layer.weight.dtype, layer.in_features) for layer in layers}) != 1:
        return None
    packed = packed_or_none(_concatenated(layers))
    if packed is None:
        return None
    product = SharedProduct(packed, [layer.out_features for layer in layers])
    merged = [MergedLinear(layer, product, index) for index, layer in enumerate(layers)]
    if not all(same_products(one, layer) for one, layer in zip(merged, layers, strict=True)):
        return None
    assert packed.weight is not None
    start = 0
    for one in merged:  # one copy of the plain weights, not two
        rows = packed.weight[start : start + one.out_features]
        one.weight = nn.Parameter(rows, requires_grad=False)
        start += one.out_features
    return merged


def _concatenated(layers: list[nn.Linear]) -> nn.Linear:
    """Returns one layer of the rows of all."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    size, width = weight.shape
    has_bias = any(layer.bias is not None for layer in layers)
    merged = nn.Linear(width, size, bias=has_bias, device="meta", dtype=weight.dtype)
    merged.weight = nn.Parameter(weight, requires_grad=False)
    if has_bias:
        biases = [
            weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
            for layer in layers
        ]
        merged.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return merged
