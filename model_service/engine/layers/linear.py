"""Linear layers with weights packed once, for CPUs.

oneDNN reorders a weight into the layout of its kernels at every call of a plain
linear layer; packing does it once at load. The packed weight is a private
operator of torch, so every layer is compared with the plain one before it is
used, and keeps the plain one if they differ or the operator is missing. Later,
when operators of our own are there, `panels` may take the place of both.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows at and below which the plain product of float32 is faster than the packed one.
PLAIN_ROWS_FLOAT32 = 2

# Largest difference from the plain product, relative to its largest value.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


class PackedLinear(nn.Module):
    """`x @ weight.T + bias` with a packed weight, `[out_features, in_features]`.

    Attributes:
        packed: the weight in oneDNN's layout; None where `panels` multiply.
        panels: multiplies in place of both the packed and the plain weight.
    """

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        """Packs a layer.

        Args:
            linear: the layer to stand in for, on the CPU.
            rows: number of rows that the layout is made for.
        """
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight: Tensor | None = linear.weight
        self.bias = linear.bias
        self.plain_rows = PLAIN_ROWS_FLOAT32 if linear.weight.dtype == torch.float32 else 0
        self.packed: Tensor | None = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach(), rows
        )
        self.panels: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[.., in_features]` to `[.., out_features]`, in the dtype of the weight."""
        if self.panels is not None:
            return self.panels(x)
        if self.weight is not None and x.numel() <= self.plain_rows * self.in_features:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, "none", [], ""
        )
        return product


def pack(module: nn.Module, rows: int = 16) -> int:
    """Replaces the linear layers of a module by packed ones, in place.

    Returns:
        How many were replaced: 0 where this machine or dtype has no packed product.
    """
    count = 0
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:  # a subclass may do more than multiply
            packed = packed_or_none(child, rows)
            if packed is not None:
                setattr(module, name, packed)
                count += 1
        else:
            count += pack(child, rows)
    return count


def packed_or_none(linear: nn.Linear, rows: int = 16) -> PackedLinear | None:
    """Returns a packed layer that was seen to equal the plain one, or None."""
    if not is_plain(linear):
        return None
    if linear.weight.device.type != "cpu" or linear.weight.dtype not in TOLERANCE:
        return None
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    try:
        packed = PackedLinear(linear, rows)
        return packed if same_products(packed, linear) else None
    except RuntimeError:  # the operator does not take this shape or machine
        return None


def is_plain(linear: nn.Module) -> bool:
    """Whether a layer multiplies and does nothing else: no subclass, wrapper or hook."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_hf_hook")
    return type(linear) is nn.Linear and not any(getattr(linear, name, None) for name in hooks)


def same_products(layer: nn.Module, linear: nn.Linear) -> bool:
    """Compares a layer with the plain one it stands in for."""
    dtype = linear.weight.dtype
    return largest_difference(layer, linear, linear.in_features, dtype) <= TOLERANCE[dtype]


@torch.no_grad()
def largest_difference(
    one: Callable[[Tensor], Tensor],
    other: Callable[[Tensor], Tensor],
    width: int,
    dtype: torch.dtype,
) -> float:
    """Compares two products for few rows and for many.

    Args:
        one: takes `[rows, width]` in `dtype`.
        other: likewise, to results of the same shape.
        width: of the rows.
        dtype: of the rows.

    Returns:
        The largest difference, relative to the largest result of `other`; NaN if there is one.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    for count in (1, 5, 17):
        x = torch.randn(count, width, generator=generator).to(dtype)
        expected = other(x).float()
        scale = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        differences.append((one(x).float() - expected).abs().max() / scale)
    return float(torch.stack(differences).max())
