"""The output layer with rows that are added while it is in use.

Rows of revision 0 stay in a layer of their own that growth never touches, so old
logits stay equal to the bit. New rows go to blocks of fixed shape, so a row's
logit does not depend on how many others came after it.

V: ids of revision 0, H: width of an output row.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_service.engine.layers.linear import packed_or_none

BLOCK_ROWS = 64


class GrowingHead(nn.Module):
    """The output layer: `[.., H]` to `[.., size]` logits."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, reserved_rows: int, base_size: int
    ) -> None:
        """Takes over a model's output layer.

        Args:
            weight: rows of revision 0, `[V, H]`.
            bias: `[V]` or longer, or None.
            reserved_rows: rows that can be added without a new allocation.
            base_size: ids of revision 0. If there are more than V, the ids without a row get
                logits of 0, which mean nothing.
        """
        super().__init__()
        size, width = weight.shape
        self._base_size = base_size
        base = nn.Linear(width, size, bias=bias is not None, device="meta", dtype=weight.dtype)
        base.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            base.bias = nn.Parameter(bias.detach()[:size], requires_grad=False)
        self.base: nn.Module = packed_or_none(base) or base
        self.num_added = 0
        # Lists, not buffers of the module: its only parameters are the ones of `base`.
        self._blocks: list[Tensor] = []
        self._biases: list[Tensor] = []
        self.reserve(reserved_rows)

    @property
    def weight(self) -> Tensor:
        """Rows of revision 0, `[V, H]` in the model's dtype, as other code expects of a head."""
        return cast(Tensor, self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """Biases of revision 0, `[V]` in the model's dtype, or None."""
        return cast(Tensor | None, self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies hidden states `[.., H]` to logits `[.., ids]`, both in the model's dtype."""
        logits: Tensor = self.base(x)
        num_missing = self._base_size - logits.shape[-1]
        if not self.num_added and not num_missing:
            return logits
        parts = [logits, logits.new_zeros(*logits.shape[:-1], num_missing)]
        for block in range(-(-self.num_added // BLOCK_ROWS)):
            bias = self._biases[block] if self._biases else None
            parts.append(F.linear(x, self._blocks[block], bias))
        return torch.cat(parts, -1)[..., : self._base_size + self.num_added]

    def reserve(self, count: int) -> None:
        """Makes room for `count` more rows. What is there is not moved.

        Raises:
            RuntimeError: memory is not sufficient.
        """
        weight, bias = self.weight, self.bias
        while len(self._blocks) * BLOCK_ROWS < self.num_added + count:
            block = weight.new_zeros(BLOCK_ROWS, weight.shape[1])
            if bias is not None:
                self._biases.append(bias.new_zeros(BLOCK_ROWS))
            self._blocks.append(block)

    def add(self, row: Tensor, bias: Tensor) -> None:
        """Appends a row `[H]` and its bias `[]` of any dtype, for which there is room."""
        block, place = divmod(self.num_added, BLOCK_ROWS)
        self._blocks[block][place] = row
        if self._biases:
            self._biases[block][place] = bias
        self.num_added += 1

    def row(self, token_id: int) -> Tensor:
        """Returns the row of an id that has one, `[H]` in the model's dtype."""
        added = token_id - self._base_size
        if added < 0:
            return self.weight[token_id].detach()
        return self._blocks[added // BLOCK_ROWS][added % BLOCK_ROWS]

    def bias_of(self, token_id: int) -> Tensor | None:
        """Returns the bias of an id with a row, `[]` in the model's dtype; None without biases."""
        if self.bias is None:
            return None
        added = token_id - self._base_size
        if added < 0:
            return self.bias[token_id].detach()
        return self._biases[added // BLOCK_ROWS][added % BLOCK_ROWS]

    def rebase(self, weight: Tensor) -> None:
        """Uses a copy of the rows of revision 0, `[V, H]` in the model's dtype, from now on."""
        self.base.weight = nn.Parameter(weight, requires_grad=False)

    def shrink_to_base(self) -> None:
        """Forgets the rows that were added."""
        self.num_added = 0
