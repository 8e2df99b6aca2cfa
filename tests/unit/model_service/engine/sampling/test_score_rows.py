"""What the peaks of rows tell about the rows."""

import pytest
import torch

from model_service.engine.sampling.score_rows import BLOCK, ScoreRows

SIZES = [1, 2, 31, 63, 64, 65, 128, 4099, 49_152]


def matrix(size: int, rows: int = 3, step: float = 1e-6) -> torch.Tensor:
    values = torch.randn(rows, size, generator=torch.Generator().manual_seed(size))
    return (values / step).round() * step


@pytest.mark.parametrize("size", SIZES)
def test_the_peaks_of_a_row_are_those_of_all_its_scores(size):
    scores = ScoreRows(matrix(size))
    assert scores.highest == scores.matrix.amax(-1).tolist()
    for block in range(min(scores.peaks.shape[-1], 5)):
        ids = slice(block * BLOCK, (block + 1) * BLOCK)
        assert torch.equal(scores.peaks[:, block], scores.matrix[:, ids].amax(-1))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 64, 256])
@pytest.mark.parametrize("step", [1e-6, 0.5], ids=["distinct", "tied"])
def test_the_highest_scores_are_found_with_their_ids(size, count, step):
    scores = ScoreRows(matrix(size, step=step))
    found = min(count, size)
    for row, values, ids in zip([2, 0], *scores.top([2, 0], count), strict=True):
        whole = scores.matrix[row]
        assert torch.equal(values[:found], whole.topk(found).values)
        assert torch.equal(whole[ids[:found]], values[:found])
        assert len(set(ids[:found].tolist())) == found
        assert set((whole > values[found - 1]).nonzero()[:, 0].tolist()) <= set(ids.tolist())
        assert values[found:].eq(-torch.inf).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1e-6, 0.5, 100.0], ids=["distinct", "tied", "all tied"])
def test_the_best_id_is_the_lowest_of_those_that_tie(size, step):
    scores = ScoreRows(matrix(size, step=step))
    assert scores.best([2, 0]) == scores.matrix.argmax(-1)[[2, 0]].tolist()


@pytest.mark.parametrize("size", SIZES)
def test_one_score_that_is_no_number_is_the_highest_of_its_row(size):
    values = matrix(size)
    values[1, size - 1] = torch.nan
    values[2, size // 2] = torch.inf
    first, second, third = ScoreRows(values).highest
    assert first == values[0].max()
    assert second != second
    assert third == torch.inf
