"""The pretended device itself: what it refuses and what it counts, as CUDA does."""

import pytest
import torch
import torch.nn.functional as F

from tests.fakes.pretend_device import MixedDevices, pretending

pytestmark = pytest.mark.pretended_gpu


def test_devices_that_meet_are_refused_as_by_cuda():
    with pretending():
        first = torch.ones(3, device="cuda:0")
        second = torch.ones(3, device="cuda:1")
        index = torch.tensor([0, 2])
        assert first.device == torch.device("cuda:0")
        assert (first + 1).device == first.device
        assert first[index].tolist() == [1, 1]
        for mixed in (
            lambda: first + second,
            lambda: first + torch.ones(3),
            lambda: first[index.to("cuda:1")],
            lambda: torch.ones(3)[index.to("cuda:0")],
            lambda: first.gather(0, index),
            lambda: F.linear(first, torch.ones(2, 3)),
        ):
            with pytest.raises(MixedDevices):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            first.numpy()
        first[:2] = torch.zeros(2)  # a copy, which may cross
        assert first.cpu().numpy().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("use", "launches", "uploads", "waits"),
    [
        (lambda x: x + 1, 1, 0, 0),
        (lambda x: x.view(3, 1).transpose(0, 1), 0, 0, 0),
        (lambda x: torch.empty_like(x), 0, 0, 0),
        (lambda x: x.tolist(), 0, 0, 1),
        (lambda x: float(x.sum()), 1, 0, 1),
        (lambda x: x.cpu(), 0, 0, 1),
        (lambda x: bool((x == 1).all()), 2, 0, 1),
        (lambda x: x.nonzero(), 1, 0, 1),
        (lambda x: torch.ones(3).to(x.device), 0, 1, 1),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 0, 1, 0),
        (lambda x: torch.tensor([1.0], device=x.device), 0, 1, 1),
        (lambda x: x[[0, 2]], 1, 1, 1),
        (lambda x: x[torch.tensor([0, 2])], 1, 1, 1),
        (lambda x: x[x > 0], 2, 0, 1),
        (lambda x: x[1:].fill_(0), 1, 0, 0),
        (lambda x: x.copy_(torch.ones(3)), 0, 1, 1),
        (lambda x: x.to(torch.float64), 1, 0, 0),
        (lambda x: F.scaled_dot_product_attention(*[x.view(1, 1, 1, 3)] * 3), 1, 0, 0),
    ],
)
def test_what_would_cost_time_is_counted(use, launches, uploads, waits):
    with pretending() as costs:
        x = torch.ones(3, device="cuda:0")
        costs.clear()
        use(x)
        assert (costs.launches, costs.uploads, costs.synchronisations) == (
            launches,
            uploads,
            waits,
        )


def test_time_passes_on_a_device_and_not_on_the_cpu():
    with pretending() as costs:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        x = torch.ones(3, device="cuda:0")
        first.record()
        for _ in range(7):
            x = x + 1
        last.record()
        assert first.elapsed_time(last) == pytest.approx(7 * 0.01)
        assert costs.synchronisations == 0
        last.synchronize()
        assert costs.synchronisations == 1
