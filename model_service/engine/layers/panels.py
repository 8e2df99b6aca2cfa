"""Weights in panels, which our own operator reads once from front to back.

An operator of `kernels/panels.h` multiplies with a weight in the type in which it is stored: a
float32 weight whose numbers all fit into 16 bits is kept in these, and widened in registers to the
same numbers. With `int8` it is rounded. Until operators are loaded, and where one does not take a
weight, the layers multiply as they did.

N: rows of a weight, K: their width, P: panels of `PANEL` rows.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_service.engine.layers.growing_head import GrowingHead
from model_service.engine.layers.linear import TOLERANCE, PackedLinear, largest_difference
from model_service.engine.layers.merged_linear import MergedLinear

PANEL = 32

# Numbers of a row that have a step in common when a row is rounded to int8.
GROUP = 64

# Largest difference from the plain product, relative to its largest value. Rounding alone gives a
# hundredth, and more where a row has one number that is far larger than the rest.
INT8_TOLERANCE = 0.1

Form = Literal["exact", "int8"]


class Panels:
    """`x @ weight.T + bias` by our own operator, which has to be loaded."""

    def __init__(
        self, panels: Tensor, steps: Tensor | None, bias: Tensor | None, size: int
    ) -> None:
        """Takes what `exact` and `int8` have laid out.

        Args:
            panels: the weight, contiguous, P first.
            steps: what one of the integers is worth, `[N]` float32; None where they are numbers.
            bias: `[N]` in any type, or None.
            size: N.
        """
        self._panels = panels
        self._steps = None if steps is None else _filled_up(steps)
        self._bias = None if bias is None else _filled_up(bias.detach().float())
        self._size = size

    def __call__(self, x: Tensor) -> Tensor:
        """Multiplies `[.., K]` to `[.., N]`, both float32 or both bfloat16."""
        product: Tensor = torch.ops.lockstep.panel_product(
            x, self._panels, self._steps, self._bias, self._size
        )
        return product

    def add_to(self, model: int) -> None:
        """Makes this the next product of a model of compiled steps."""
        torch.ops.lockstep.add_panels(model, self._panels, self._steps, self._bias, self._size)


def exact(weight: Tensor, bias: Tensor | None) -> Panels:
    """Lays out a weight `[N, K]`, float32 in the smallest dtype that holds its numbers."""
    rows = _filled_up(weight)
    if weight.dtype == torch.bfloat16:  # multiplied in pairs
        pairs = rows.view(-1, PANEL, weight.shape[1] // 2, 2).transpose(1, 2)
        return Panels(pairs.contiguous(), None, bias, len(weight))
    dtype = narrowest(weight)
    places = rows.to(dtype).view(-1, PANEL, weight.shape[1]).transpose(1, 2)
    if dtype == torch.bfloat16:  # widened two at a time, from the halves of a word
        places = places.reshape(*places.shape[:2], 2, PANEL // 2).transpose(2, 3)
    return Panels(places.contiguous(), None, bias, len(weight))


def narrowest(weight: Tensor) -> torch.dtype:
    """Returns the smallest type that holds every number of a weight, `[N, K]` float32."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(part.to(dtype).float(), part) for part in torch.split(weight, 4096)):
            return dtype
    return weight.dtype


def int8(weight: Tensor, bias: Tensor | None) -> Panels:
    """Rounds each row of a weight to steps of a 127th of its largest number.

    Args:
        weight: `[N, K]` float32 or bfloat16.
        bias: `[N]` in any dtype, or None.
    """
    size, width = weight.shape
    numbers = weight.float()
    steps = numbers.abs().amax(1) / 127
    rounded = (numbers / steps.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    rows = (_filled_up(F.pad(rounded, (0, -width % GROUP))) + 128).to(torch.uint8)
    fours = rows.view(-1, PANEL, rows.shape[1] // 4, 4).transpose(1, 2)
    return Panels(fours.contiguous(), steps, bias, size)


def adopt(model: nn.Module, form: Form) -> Iterator[str | None]:
    """Lets the packed layers of a model multiply with panels, one at a time.

    Each is compared with the plain product first, and what it held before is given up.

    Yields:
        None for a layer that multiplies with panels from now on; else why it does not.
    """
    # Rows of the output layer are read when others are added.
    kept = {module.base for module in model.modules() if isinstance(module, GrowingHead)}
    owners = _owners(model)
    for layer in packed_layers(model):
        reason = _adopt(layer, form)
        if reason is None:
            layer.packed = None
            for owner in owners.get(layer, []):
                owner.weight = None
            if layer not in kept:
                layer.weight = None
        yield reason


def packed_layers(model: nn.Module) -> list[PackedLinear]:
    """Returns the packed layers of a model, each once, also those that serve several others."""
    found: dict[PackedLinear, None] = {}
    for module in model.modules():
        if isinstance(module, PackedLinear):
            found[module] = None
        elif isinstance(module, MergedLinear) and isinstance(module.product.merged, PackedLinear):
            found[module.product.merged] = None
    return list(found)


def _owners(model: nn.Module) -> dict[nn.Module, list[MergedLinear]]:
    owners: dict[nn.Module, list[MergedLinear]] = {}
    for module in model.modules():
        if isinstance(module, MergedLinear):
            owners.setdefault(module.product.merged, []).append(module)
    return owners


def _adopt(layer: PackedLinear, form: Form) -> str | None:
    weight = layer.weight
    if layer.panels is not None or weight is None:
        return "it has panels already"
    if form == "exact" and weight.dtype == torch.bfloat16:
        return "oneDNN's products of bfloat16 were not seen to be slower"
    make: Callable[[Tensor, Tensor | None], Panels] = exact if form == "exact" else int8
    try:
        panels = make(weight.detach(), layer.bias)

        def plain(x: Tensor) -> Tensor:
            return F.linear(x, weight, layer.bias)

        difference = largest_difference(panels, plain, layer.in_features, weight.dtype)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    tolerance = TOLERANCE[weight.dtype] if form == "exact" else INT8_TOLERANCE
    if not difference <= tolerance:
        return f"its products differ by {difference:.2g} of the largest"
    layer.panels = panels
    return None


def _filled_up(rows: Tensor) -> Tensor:
    """Adds rows of zeros, `[N, ..]` to `[P * PANEL, ..]` in the same dtype."""
    missing = -len(rows) % PANEL
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows
