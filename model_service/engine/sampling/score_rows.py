"""Rows of scores with their peaks: one pass over all rows, after which few scores are read.

A row is cut into blocks of ids, and the highest score of each is its peak. The peaks
say whether a row is finite, which id is the best, and where the highest scores are.

N: rows, W: their width, B: blocks of a row, K: candidates, M: blocks that are read.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 64
"""Ids of a block: so many are compared by whole vectors."""

_LOWEST = np.finfo(np.float32).min


class ScoreRows:
    """Rows of one width.

    Attributes:
        matrix: `[N, W]` float32, contiguous, not modified; `-inf` where an id is excluded.
        peaks: the highest score of each block, `[N, B]` float32; NaN is the highest of all.
        highest: the highest score of each row.
    """

    def __init__(self, matrix: Tensor) -> None:
        """Finds the peaks of all rows, in one pass.

        Args:
            matrix: `[N, W]` float32.
        """
        self.matrix = matrix.contiguous()
        width = matrix.shape[-1]
        whole = width - width % BLOCK
        self.peaks = self.matrix[:, :whole].view(len(matrix), -1, BLOCK).amax(-1)
        if whole < width:
            last = self.matrix[:, whole:].amax(-1, keepdim=True)
            self.peaks = torch.cat([self.peaks, last], -1)
        self.highest: list[float] = self.peaks.amax(-1).tolist()

    def best(self, rows: list[int]) -> list[int]:
        """Returns the ids of the highest scores of some rows, ties to the lowest id.

        Args:
            rows: which, each with a highest score that is a number.
        """
        if self.matrix.device.type != "cpu":
            return [int(token_id) for token_id in self.matrix[rows].argmax(-1).tolist()]
        highest = np.array([self.highest[row] for row in rows], np.float32)[:, None]
        row, ids, _ = self._at_least(rows, highest)
        lowest = np.full(len(rows), self.matrix.shape[-1])
        np.minimum.at(lowest, row, ids)
        return lowest.tolist()

    def top(self, rows: list[int], count: int) -> tuple[Tensor, Tensor]:
        """Finds the highest scores of some rows and their ids, on the CPU.

        Every id whose score is above the last one returned is among them; which of
        several equal to the last one are is not defined.

        Args:
            rows: which, each with a highest score that is a number.
            count: how many, K.

        Returns:
            `[N, K]` float32, descending, padded with `-inf`, and `[N, K]` int64.
        """
        if self.matrix.device.type == "cpu" and self.peaks.shape[-1] >= count:
            values, ids = map(torch.from_numpy, self._highest_of_blocks(rows, count))
        else:
            found = self.matrix[rows].topk(min(count, self.matrix.shape[-1]))
            values, ids = found.values.cpu(), found.indices.cpu()
        missing = (0, count - values.shape[-1])
        pad = torch.nn.functional.pad
        return pad(values, missing, value=-torch.inf), pad(ids, missing)

    def _highest_of_blocks(
        self, rows: list[int], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the highest scores without `topk`, which takes several times as long.

        K blocks have a peak of at least the K-th highest peak, so the K highest
        scores are at least that, and few others are.
        """
        place = self.peaks.shape[-1] - count
        bounds = np.partition(self.peaks.numpy()[rows], place, axis=1)[:, place, None]
        row, ids, scores = self._at_least(rows, np.maximum(bounds, _LOWEST))
        lengths = np.bincount(row, minlength=len(rows))
        column = np.arange(len(row)) - (lengths.cumsum() - lengths)[row]
        shape = len(rows), max(count, int(lengths.max()))
        all_scores, all_ids = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
        all_scores[row, column] = scores
        all_ids[row, column] = ids
        order = np.argsort(-all_scores, axis=1)[:, :count]
        return np.take_along_axis(all_scores, order, 1), np.take_along_axis(all_ids, order, 1)

    def _at_least(
        self, rows: list[int], bounds: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Finds all scores that are at least a bound, by blocks whose peaks are.

        Args:
            rows: which, each with a highest score that is a number.
            bounds: of each row, `[N, 1]`, finite.

        Returns:
            Of each score its place in `rows`, which ascends, its id, and the score.
        """
        width = self.matrix.shape[-1]
        row, block = np.nonzero(self.peaks.numpy()[rows] >= bounds)
        flat = self.matrix.numpy().reshape(-1)
        size = min(BLOCK, len(flat))
        # The last block of a row may be shorter. What is read instead of its end is left out below.
        first = np.array(rows)[row] * width
        starts = np.minimum(first + block * BLOCK, len(flat) - size)
        scores = sliding_window_view(flat, size)[starts]  # [M, block]
        found, place = np.nonzero(scores >= bounds[row])
        ids = (starts - first)[found] + place
        own = (ids // BLOCK == block[found]) & (ids < width)
        found, place, ids = found[own], place[own], ids[own]
        return row[found], ids, scores[found, place]
