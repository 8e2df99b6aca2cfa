import pytest
import torch
from torch import nn

from model_service.engine.layers import merged_linear
from model_service.engine.layers.merged_linear import MergedLinear, merge, observe


class Projections(nn.Module):
    """Reads one input three times, as attention layers do, and another one once."""

    def __init__(self, dtype: torch.dtype = torch.float32, bias: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.q = nn.Linear(16, 32, bias=bias, dtype=dtype)
        self.k = nn.Linear(16, 8, bias=bias, dtype=dtype)
        self.v = nn.Linear(16, 8, bias=False, dtype=dtype)
        self.o = nn.Linear(32, 16, bias=bias, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o(q * (k + v).repeat(1, 4))


def observed(model: nn.Module, *inputs: torch.Tensor) -> merged_linear.SiblingLayers:
    with observe(model) as siblings:
        for x in inputs:
            model(x)
    return siblings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_merged_layers_equal_the_plain_ones(dtype, bias, rows):
    model, plain = Projections(dtype, bias), Projections(dtype, bias)
    assert merge(observed(model, torch.randn(3, 16, dtype=dtype))) == 3
    x = torch.randn(rows, 16, dtype=dtype)
    with torch.inference_mode():
        got, expected = model(x), plain(x)
    torch.testing.assert_close(got, expected, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)


def test_layers_that_read_one_input_are_found_and_no_others():
    model = Projections()
    siblings = observed(model, torch.randn(3, 16), torch.randn(5, 16))
    assert siblings.groups == {model: [("q", "k", "v")]}
    merge(siblings)
    assert [type(layer) for layer in (model.q, model.k, model.v)] == [MergedLinear] * 3
    assert type(model.o) is nn.Linear


def test_layers_that_are_called_together_only_sometimes_are_left_alone():
    class Sometimes(Projections):
        def forward(self, x):
            return self.q(x) if len(x) > 3 else super().forward(x)

    model = Sometimes()
    assert observed(model, torch.randn(3, 16), torch.randn(5, 16)).groups == {}


def test_a_layer_that_is_called_with_another_input_than_its_siblings_multiplies_that_input():
    model, plain = Projections(), Projections()
    merge(observed(model, torch.randn(3, 16)))
    one, other = torch.randn(5, 16), torch.randn(5, 16)
    with torch.inference_mode():
        model.q(one)
        torch.testing.assert_close(model.k(other), plain.k(other))
        torch.testing.assert_close(model.v(one), plain.v(one))
        torch.testing.assert_close(model.k(one), plain.k(one))


def test_an_equal_input_at_the_same_address_is_not_taken_for_the_last_one():
    model, plain = Projections(), Projections()
    merge(observed(model, torch.randn(3, 16)))
    with torch.inference_mode():
        for _ in range(5):  # each freed before the next is made
            x = torch.randn(4, 16)
            torch.testing.assert_close(model(x), plain(x))
            del x


def test_layers_with_hooks_or_of_a_subclass_are_left_alone():
    class Adapted(nn.Linear):
        pass

    model = Projections()
    siblings = observed(model, torch.randn(3, 16))
    model.k.register_forward_hook(lambda module, args, output: output + 1)
    assert merge(siblings) == 0

    model = Projections()
    model.k = Adapted(16, 8)
    assert observed(model, torch.randn(3, 16)).groups == {model: [("q", "v")]}

    assert not model.q._forward_pre_hooks, "observing leaves nothing behind"


def test_layers_whose_merged_product_differs_stay_plain(monkeypatch):
    model = Projections()
    siblings = observed(model, torch.randn(3, 16))
    forward = MergedLinear.forward
    monkeypatch.setattr(MergedLinear, "forward", lambda self, x: forward(self, x) * 1.01)
    assert merge(siblings) == 0
    assert type(model.q) is nn.Linear


def test_merged_layers_keep_one_copy_of_the_plain_weights():
    model = Projections()
    merge(observed(model, torch.randn(3, 16)))
    storages = {layer.weight.untyped_storage().data_ptr() for layer in (model.q, model.k, model.v)}
    assert len(storages) == 1
