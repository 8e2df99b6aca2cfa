import pytest
import torch

from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.score_rows import ScoreRows
from model_service.engine.sampling.warpers import asked, warp
from model_service.protocol.parameters import GenerationConfig

SIZE = 5000


def warped(row: torch.Tensor, count: int = 64, **config) -> Candidates:
    resolved = GenerationConfig(max_new_tokens=1, **{"do_sample": True, "top_k": 0, **config})
    candidates = Candidates.find(ScoreRows(row[None]), [0], [resolved.temperature], count)
    warp(candidates, [resolved], [asked(resolved)])
    return candidates


def test_excluded_ids_are_no_candidates():
    row = torch.full((SIZE,), -torch.inf)
    row[[7, 3000]] = torch.tensor([1.0, 2.0])
    found = Candidates.find(ScoreRows(row[None]), [0], [1.0], 64)
    assert found.ids[0, :2].tolist() == [3000, 7]
    assert found.possible.sum() == 2
    assert not found.tail_possible.any()


def test_ties_of_the_kth_score_may_lie_beyond_the_candidates():
    assert warped(torch.zeros(SIZE), top_k=5).tail_possible.all()
    assert not warped(torch.arange(float(SIZE)), top_k=5).tail_possible.any()


def test_ids_at_the_edge_of_top_p_are_possible_but_not_certain():
    row = torch.full((SIZE,), -torch.inf)
    row[:4] = 0.0  # four times a quarter: which of them stay depends on the order of a sort
    found = warped(row, top_p=0.5)
    assert found.possible.sum() == 4
    assert found.certain.sum() == 0


def test_a_nucleus_that_the_candidates_do_not_hold_leaves_its_core_certain():
    row = torch.zeros(SIZE)
    row[17] = 9.0
    found = warped(row, top_p=0.9)
    assert found.ids[0, 0] == 17
    assert found.certain[0].tolist() == [True] + [False] * 63
    assert found.tail_possible.all()


@pytest.mark.parametrize("config", [{"typical_p": 0.5}, {"eta_cutoff": 0.01}], ids=str)
def test_the_entropy_of_an_uncertain_set_decides_nothing(config):
    row = torch.full((SIZE,), -torch.inf)
    row[:4] = 0.0
    assert warped(row, top_p=0.5, **config).undecided.all()


@pytest.mark.parametrize("config", [{"min_p": 1e-35}, {"epsilon_cutoff": 1e-35}], ids=str)
def test_bounds_beside_the_smallest_float_decide_nothing(config):
    assert warped(torch.randn(SIZE), **config).undecided.all()


def test_a_typical_set_beyond_the_candidates_makes_none_of_them_certain():
    row = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    found = warped(row, typical_p=0.3)
    assert not found.certain.any()
    assert found.tail_possible.all()


def test_which_of_equal_probabilities_min_p_keeps_is_left_to_the_reference():
    row = torch.arange(100.0) * 1e5  # all but one have probability 0
    assert warped(row, min_p=1.0, min_tokens_to_keep=2).undecided.all()
    assert not warped(row, min_p=1.0).undecided.any()


def test_the_entropy_that_top_h_looks_at_needs_its_candidates():
    assert warped(torch.randn(SIZE), count=64, top_h=0.5).undecided.all()
    assert not warped(torch.randn(SIZE), count=256, top_h=0.5).undecided.any()
