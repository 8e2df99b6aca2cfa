import pytest
import torch

from model_service.engine.sampling.torch_draws import KEEP_EVERY, TorchDraws

SIZE = 300
COUNT = 3 * KEEP_EVERY + 5
SCORES = torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(1))


def in_order(seed: int) -> list[int]:
    """What torch draws by itself."""
    torch.manual_seed(seed)
    return [int(torch.multinomial(row[None].softmax(-1), 1)) for row in SCORES]


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**63 - 1])
def test_draws_in_order_are_those_of_torch(seed):
    draws = TorchDraws(seed)
    assert [draws.draw(row, index) for index, row in enumerate(SCORES)] == in_order(seed)


def test_several_at_a_time_are_those_of_torch_in_any_order():
    torch.manual_seed(4)
    expected = [torch.multinomial(row[None].softmax(-1), 7)[0].tolist() for row in SCORES]
    draws = TorchDraws(4)
    for index in [0, 1, 2, COUNT - 1, 3, KEEP_EVERY, KEEP_EVERY - 1]:
        assert draws.draw_several(SCORES[index], 7, index).tolist() == expected[index]


def test_draws_in_any_order_are_the_same():
    expected = in_order(3)
    draws = TorchDraws(3)
    generator = torch.Generator().manual_seed(0)
    for index in torch.randint(COUNT, (200,), generator=generator).tolist():
        assert draws.draw(SCORES[index], index) == expected[index], index


def test_a_copy_draws_what_the_original_would_and_leaves_it_alone():
    expected = in_order(5)
    draws = TorchDraws(5)
    for index in range(20):
        draws.draw(SCORES[index], index)
    copy = draws.copy()
    for index in range(17, COUNT):
        assert copy.draw(SCORES[index], index) == expected[index]
    assert draws.draw(SCORES[20], 20) == expected[20]


def test_few_states_are_kept():
    draws = TorchDraws(5)
    for index, row in enumerate(SCORES):
        draws.draw(row, index)
    assert len(draws._states) <= COUNT // KEEP_EVERY + 3


def test_other_random_numbers_do_not_disturb_draws_nor_draws_them():
    expected = in_order(9)
    draws = TorchDraws(9)
    torch.manual_seed(1)
    untouched = torch.rand(COUNT).tolist()
    torch.manual_seed(1)
    for index, row in enumerate(SCORES):
        assert draws.draw(row, index) == expected[index]
        assert float(torch.rand(1)) == pytest.approx(untouched[index])
