"""What the rows of a new id hold: the rule that `docs/vocabulary.md` writes down.

A mean is the sum in float64 of rows taken one after the other, divided by their
number: additions in a fixed order give the same bits on every machine, whatever
its vectors and threads. It is rounded to float32, and from there to the type of
the weights.

E: width of an embedding row, H: width of an output row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_service.engine.layers.growing_embedding import GrowingEmbedding
from model_service.engine.layers.growing_head import GrowingHead
from model_service.protocol import NewRow

# Rows that are widened to float64 at once.
CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Values:
    """The rows of one id, in the types and places of the layers they are for.

    Attributes:
        input: `[E]`.
        output: `[H]`.
        bias: of the output, `[]`; 0 where the layer has none.
    """

    input: Tensor
    output: Tensor
    bias: Tensor


class RowRules:
    """Makes rows out of the existing rows."""

    def __init__(
        self, embedding: GrowingEmbedding, head: GrowingHead, without_rows: range, *, tied: bool
    ) -> None:
        """Takes the means over all ids of revision 0, which are all ids at first.

        Args:
            embedding: input rows.
            head: output rows.
            without_rows: ids of revision 0 that have none.
            tied: whether output rows are the input rows.
        """
        self._without_rows = without_rows
        self._embedding = embedding
        self._head = head
        self._tied = tied
        self._means = self._rounded(
            mean(embedding.rows[: len(head.weight)]),
            mean(embedding.rows[: len(head.weight)] if tied else head.weight),
            torch.zeros(1) if head.bias is None else _mean_bias(head.bias),
        )

    def values(self, row: NewRow) -> Values:
        """Returns the rows of a new id.

        Raises:
            ValueError: they cannot be made for this model.
        """
        match row.initialization:
            case "zero":
                return self._zeros()
            case "mean":
                return self._means
            case "values":
                return self._given(row)
            case "copy":
                return self._copy(row)
            case "mean_of_pieces":
                return self._mean_of(row)

    def _zeros(self) -> Values:
        means = self._means
        return Values(*map(torch.zeros_like, (means.input, means.output, means.bias)))

    def _given(self, row: NewRow) -> Values:
        given = _vector(row, "input_values", row.input_values, len(self._means.input))
        output = given
        if row.output_values or len(self._means.output) != len(given):
            output = _vector(row, "output_values", row.output_values, len(self._means.output))
        values = self._rounded(given, output, torch.zeros(1))
        if not (values.input.isfinite().all() and values.output.isfinite().all()):
            dtype = str(values.input.dtype).removeprefix("torch.")
            raise ValueError(
                f"token {row.token_id}: a value is not finite as {dtype}, the type of the weights"
            )
        if self._tied and not torch.equal(given, output):
            raise ValueError(
                f"token {row.token_id}: output_values must be unset or equal to input_values, as "
                "this model's output rows are its input rows"
            )
        return values

    def _copy(self, row: NewRow) -> Values:
        source = self._known(row, row.copy_token_id)
        return Values(
            self._embedding.rows[source].clone(),
            self._head.row(source).clone(),
            self._bias(source).clone(),
        )

    def _mean_of(self, row: NewRow) -> Values:
        ids = [self._known(row, token_id) for token_id in row.previous_ids]
        if not ids:
            raise ValueError(f"token {row.token_id} has no pieces to take the mean of")
        inputs = mean(torch.stack([self._embedding.rows[token_id] for token_id in ids]))
        biases = torch.stack([self._bias(token_id) for token_id in ids])
        outputs = inputs
        if not self._tied:
            outputs = mean(torch.stack([self._head.row(token_id) for token_id in ids]))
        return self._rounded(inputs, outputs, _mean_bias(biases))

    def _known(self, row: NewRow, token_id: int | None) -> int:
        """Checks an id of the revision before."""
        if token_id is None or not 0 <= token_id < self._embedding.size:
            raise ValueError(
                f"token {row.token_id} is made from id {token_id}, which is not in "
                f"[0, {self._embedding.size})"
            )
        if token_id in self._without_rows:
            raise ValueError(
                f"token {row.token_id} is made from id {token_id}, for which the model has no row"
            )
        return token_id

    def _bias(self, token_id: int) -> Tensor:
        bias = self._head.bias_of(token_id)
        return torch.zeros((), dtype=self._head.weight.dtype) if bias is None else bias

    def _rounded(self, inputs: Tensor, outputs: Tensor, biases: Tensor) -> Values:
        """Rounds rows `[E]` and `[H]` and a bias `[1]`, of any type, on the CPU."""
        return Values(
            inputs.float().to(self._embedding.rows),
            outputs.float().to(self._head.weight),
            biases[0].float().to(self._head.weight),
        )


def mean(rows: Tensor) -> Tensor:
    """Returns the mean of rows `[N, W]` of any type as float64 `[W]` on the CPU."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), CHUNK_ROWS):
        for row in rows[start : start + CHUNK_ROWS].detach().double().cpu().numpy():
            total += row
    return torch.from_numpy(total / len(rows))


def _mean_bias(biases: Tensor) -> Tensor:
    """Returns the mean of biases `[N]` that are not masks as float64 `[1]`; `-inf` if all are."""
    numbers = biases[biases > -torch.inf]
    return mean(numbers[:, None]) if len(numbers) else torch.tensor([-torch.inf])


def _vector(row: NewRow, name: str, data: bytes, width: int) -> Tensor:
    vector = torch.from_numpy(np.frombuffer(data, dtype="<f4").copy())
    if len(vector) != width:
        raise ValueError(
            f"token {row.token_id}: {name} has {len(vector)} values, but a row of this model has "
            f"{width}"
        )
    return vector
