import pytest
import torch
from torch import nn

from model_service.engine.layers.linear import PackedLinear, pack, packed_or_none


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_a_packed_layer_equals_the_plain_one(dtype, bias, rows):
    torch.manual_seed(0)
    linear = nn.Linear(48, 96, bias=bias, dtype=dtype)
    packed = packed_or_none(linear)
    assert packed is not None
    x = torch.randn(1, rows, 48, dtype=dtype)
    with torch.inference_mode():
        expected, got = linear(x), packed(x)
    assert got.shape == expected.shape
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(got, expected, atol=tolerance)


def test_every_plain_layer_of_a_model_is_packed_and_subclasses_are_left_alone():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8)), Special(8, 8))
    assert pack(model) == 2
    assert [type(module) for module in model] == [PackedLinear, nn.Sequential, Special]


def test_a_layer_whose_packed_product_differs_stays_plain(monkeypatch):
    monkeypatch.setattr(
        PackedLinear, "forward", lambda self, x: nn.functional.linear(x, self.weight) * 1.01
    )
    assert packed_or_none(nn.Linear(8, 8, bias=False)) is None


def test_half_precision_that_has_no_packed_product_stays_plain():
    assert packed_or_none(nn.Linear(8, 8, dtype=torch.float16)) is None
