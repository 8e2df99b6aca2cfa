"""Embedding and output rows that grow while the model runs.

The embedding is a view of a larger buffer: a new id's row is written into the
reserve and is there. The output head is split: rows of revision 0 stay in a
layer of their own that growth never touches, so old logits stay equal to the
bit, and new rows go to blocks of fixed shape, so a row's logit does not depend
on how many others came after it.

V: ids of revision 0, E: rows of the checkpoint's embedding, H: hidden size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_service.engine import placement
from model_service.engine.linear import packed_or_none
from model_service.messages import NewRow

BLOCK_ROWS = 64


class GrowingHead(nn.Module):
    """The output layer: `[.., H]` to `[.., size]` logits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, reserved_rows: int) -> None:
        """Takes over a model's output layer.

        Args:
            weight: rows of revision 0, `[V, H]`.
            bias: `[V]` or longer, or None.
            reserved_rows: rows that can be added without a new allocation.
        """
        super().__init__()
        size, width = weight.shape
        base = nn.Linear(width, size, bias=bias is not None, device="meta", dtype=weight.dtype)
        base.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            base.bias = nn.Parameter(bias.detach()[:size], requires_grad=False)
        self.base: nn.Module = packed_or_none(base) or base
        blocks = max(1, -(-reserved_rows // BLOCK_ROWS))
        self.tail = weight.new_zeros(blocks, BLOCK_ROWS, weight.shape[1])
        self.tail_bias = weight.new_zeros(blocks, BLOCK_ROWS)
        self.num_added = 0

    @property
    def weight(self) -> Tensor:
        """Rows of revision 0, `[V, H]`, which is what other code asks a head for."""
        return cast(Tensor, self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """Biases of revision 0, `[V]`, or None."""
        return cast(Tensor | None, self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits of every id there is."""
        logits: Tensor = self.base(x)
        if not self.num_added:
            return logits
        parts = [logits]
        for block in range(-(-self.num_added // BLOCK_ROWS)):
            parts.append(F.linear(x, self.tail[block], self.tail_bias[block]))
        return torch.cat(parts, -1)[..., : logits.shape[-1] + self.num_added]

    def add(self, rows: Tensor, biases: Tensor) -> None:
        """Appends rows `[N, H]` and biases `[N]`."""
        needed = -(-(self.num_added + len(rows)) // BLOCK_ROWS) - len(self.tail)
        if needed > 0:
            self.tail = F.pad(self.tail, (0, 0, 0, 0, 0, needed))
            self.tail_bias = F.pad(self.tail_bias, (0, 0, 0, needed))
        end = self.num_added + len(rows)
        self.tail.view(-1, self.tail.shape[-1])[self.num_added : end] = rows
        self.tail_bias.view(-1)[self.num_added : end] = biases
        self.num_added = end


@dataclass(frozen=True, slots=True)
class RevisionRows:
    """What a request of one revision may see.

    Attributes:
        size: ids.
        forbidden: ids that must not be generated.
        token_bytes: the bytes that ids stand for; without those nobody has told yet.
    """

    size: int
    forbidden: tuple[int, ...]
    token_bytes: Mapping[int, bytes] = field(default_factory=dict)


class Vocabulary:
    """The embedding and head rows of every revision so far. One thread uses it."""

    def __init__(self, model: PreTrainedModel, base_size: int, reserved_rows: int) -> None:
        """Takes over a model's embedding and head.

        Args:
            model: the model, whose head is replaced.
            base_size: ids at revision 0; 0 means the rows of the embedding.
            reserved_rows: rows kept free.
        """
        embedding = cast(nn.Embedding, model.get_input_embeddings())
        head = cast(nn.Linear | None, model.get_output_embeddings())
        if head is None:
            raise ValueError("it has no output layer of its own that could grow")
        placement.keep_resident(embedding)
        placement.keep_resident(head)
        weight = embedding.weight.detach()
        self.num_rows = weight.shape[0]
        self.base_size = base_size or self.num_rows
        self.tied = head.weight.data_ptr() == weight.data_ptr()
        self._embedding = embedding
        self._buffer = weight.new_zeros(self.base_size + reserved_rows, weight.shape[1])
        self._buffer[: self.base_size] = weight[: self.base_size]
        base = self._buffer if self.tied else head.weight.detach()
        self._head = GrowingHead(base[: self.base_size], head.bias, reserved_rows)
        placement.carry_hook(head, self._head)
        model.set_output_embeddings(self._head)
        self._bind()
        self._mean = self._base_mean(weight)
        self._output_mean = self._mean if self.tied else self._base_mean(self._head.weight)
        self._hash = hashlib.sha256()
        self.token_bytes: dict[int, bytes] = {}
        self.revisions = [RevisionRows(self.base_size, (), self.token_bytes)]

    def _bind(self) -> None:
        self._embedding.weight = nn.Parameter(self._buffer, requires_grad=False)
        self._embedding.num_embeddings = len(self._buffer)

    def _base_mean(self, weight: Tensor) -> Tensor:
        """Mean of the rows of revision 0 in float64, `[H]`: the order of additions is fixed."""
        return weight[: self.base_size].double().mean(0)

    @property
    def size(self) -> int:
        """Ids of the newest revision."""
        return self.revisions[-1].size

    @property
    def revision(self) -> int:
        """The newest revision."""
        return len(self.revisions) - 1

    @property
    def num_reserved(self) -> int:
        """Rows that can be added before memory is allocated anew."""
        return len(self._buffer) - self.size

    @property
    def added_rows_sha256(self) -> str:
        """Hash over all added rows as float32, input row before output row."""
        return self._hash.hexdigest()

    @torch.inference_mode()
    def grow(self, revision: int, rows: list[NewRow]) -> None:
        """Appends one revision. Nothing is changed when it fails.

        Raises:
            ValueError: the revision or an id is not the next one, or a vector has the wrong size.
        """
        if revision != self.revision + 1:
            raise ValueError(f"revision {revision} does not follow {self.revision}")
        inputs, outputs, biases = [], [], []
        for index, row in enumerate(rows):
            if row.token_id != self.size + index:
                raise ValueError(f"id {row.token_id} does not follow {self.size + index - 1}")
            values = self._initialize(row)
            inputs.append(values[0].to(self._buffer.device))
            outputs.append(values[1].to(self._head.tail.device))
            biases.append(values[2])
        if rows:
            self._write(torch.stack(inputs), torch.stack(outputs), torch.tensor(biases))
        last = self.revisions[-1]
        forbidden = tuple(row.token_id for row in rows if not row.generable)
        self.token_bytes.update((row.token_id, row.token_bytes) for row in rows)
        self.revisions.append(
            RevisionRows(last.size + len(rows), (*last.forbidden, *forbidden), self.token_bytes)
        )

    def spell(self, token_bytes: Sequence[bytes]) -> None:
        """Takes note of the bytes that the ids of revision 0 stand for."""
        self.token_bytes.update(enumerate(token_bytes))

    def shrink_to_base(self) -> None:
        """Forgets every revision but the first: after growth was tried, before it is used."""
        self._buffer[self.base_size :] = 0
        self._head.num_added = 0
        self._hash = hashlib.sha256()
        for added in [token_id for token_id in self.token_bytes if token_id >= self.base_size]:
            del self.token_bytes[added]
        del self.revisions[1:]

    def _write(self, inputs: Tensor, outputs: Tensor, biases: Tensor) -> None:
        end = self.size + len(inputs)
        if end > len(self._buffer):
            grown = self._buffer.new_zeros(end + end // 4, self._buffer.shape[1])
            grown[: self.size] = self._buffer[: self.size]
            self._buffer = grown
            self._bind()
        self._buffer[self.size : end] = inputs
        self._head.add(outputs.to(self._head.tail), biases.to(self._head.tail_bias))
        for one, other in zip(inputs, outputs, strict=True):
            for values in (one, other):
                rounded = values.to(self._buffer.dtype).float().cpu().contiguous()
                self._hash.update(rounded.numpy().astype("<f4").tobytes())

    def _initialize(self, row: NewRow) -> tuple[Tensor, Tensor, float]:
        """Returns input row, output row (`[H]` each) and output bias of a new id."""
        if row.initialization == "values":
            values = self._vector(row.input_values)
            return values, self._vector(row.output_values) if row.output_values else values, 0.0
        if row.initialization == "zero":
            zeros = torch.zeros_like(self._mean)
            return zeros, zeros, 0.0
        if row.initialization == "mean":
            return self._mean, self._output_mean, 0.0
        sources = row.previous_ids if row.initialization == "mean_of_pieces" else None
        if row.initialization == "copy":
            assert row.copy_token_id is not None
            sources = [row.copy_token_id]
        if not sources:
            return self._mean, self._output_mean, 0.0
        return self._mean_of(sources)

    def _vector(self, data: bytes) -> Tensor:
        vector = torch.from_numpy(np.frombuffer(data, dtype="<f4").copy())
        if len(vector) != self._buffer.shape[1]:
            raise ValueError(f"a vector has {len(vector)} values, not {self._buffer.shape[1]}")
        return vector

    def _mean_of(self, ids: list[int]) -> tuple[Tensor, Tensor, float]:
        """Mean of the rows of ids in float64, rounded once when written."""
        inputs = torch.stack([self._buffer[i].double() for i in ids]).mean(0)
        outputs, biases = zip(*(self._output_row(i) for i in ids), strict=True)
        bias = sum(biases) / len(ids)
        return inputs, inputs if self.tied else torch.stack(outputs).mean(0), bias

    def _output_row(self, token_id: int) -> tuple[Tensor, float]:
        if token_id >= self.base_size:
            place = token_id - self.base_size
            row = self._head.tail.view(-1, self._head.tail.shape[-1])[place]
            return row.double(), float(self._head.tail_bias.view(-1)[place])
        bias = getattr(self._head.base, "bias", None)
        return self._head.weight[token_id].double(), 0.0 if bias is None else float(bias[token_id])
