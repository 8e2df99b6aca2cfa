"""The rows of new ids as `docs/vocabulary.md` says, in numpy: shares nothing with the engine."""

import hashlib

import numpy as np

from model_service.protocol import NewRow


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds float64 to float32, and that to the type of the weights. Returns float32."""
    single = values.astype(np.float32)
    if dtype == "bfloat16":  # which numpy does not have: the upper half, ties to even
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return single.astype(dtype).astype(np.float32)


class OracleRows:
    """Input rows, output rows and biases of all ids, float32 lists that grow.

    Attributes:
        sha256: over the rows that were added.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        outputs: np.ndarray | None,
        dtype: str = "float32",
        biases: np.ndarray | None = None,
    ) -> None:
        """Starts with revision 0.

        Args:
            inputs: `[V, E]`, values of the type of the weights.
            outputs: `[V, H]`, or None for tied rows.
            dtype: type of the weights.
            biases: `[V]`, or None.
        """
        self.tied = outputs is None
        self.tables = [list(inputs), list(inputs if outputs is None else outputs)]
        if biases is not None:
            self.tables.append(list(biases[:, None]))
        self.size = len(inputs)
        self._base = range(self.size)
        self._dtype = dtype
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, row: NewRow) -> None:
        """Appends the rows of one id; ids of its revision must not be its sources."""
        for index, table in enumerate(self.tables):
            new = self._row(table, row, index)
            table.append(new)
            self._hash.update(new.astype("<f4").tobytes())
        self.size += 1

    def _row(self, table: list[np.ndarray], row: NewRow, index: int) -> np.ndarray:
        if row.initialization == "copy":
            return table[row.copy_token_id]
        if row.initialization == "zero":
            return np.zeros_like(table[0])
        if row.initialization == "values":
            if index == 2:
                return np.zeros(1, np.float32)
            data = row.output_values if index == 1 and row.output_values else row.input_values
            return rounded(np.frombuffer(data, "<f4"), self._dtype)
        sources = row.previous_ids if row.initialization == "mean_of_pieces" else self._base
        if index == 2:  # masks are no numbers, unless there is nothing else
            sources = [source for source in sources if table[source] > -np.inf] or sources
        total = np.zeros(table[0].shape, np.float64)
        for source in sources:
            total = total + table[source].astype(np.float64)
        return rounded(total / len(sources), self._dtype)
