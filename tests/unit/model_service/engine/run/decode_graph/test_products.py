"""Products with weights in panels, against the same products of torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_service.engine.layers import panels
from model_service.engine.layers.growing_head import GrowingHead
from model_service.engine.layers.linear import pack, packed_or_none
from model_service.engine.layers.merged_linear import MergedLinear, merge, observe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("ops")]

# Whole panels of 32 and not, and widths that groups of 64 do not divide.
SHAPES = [(96, 64), (100, 130), (31, 576), (1, 6)]
ROWS = (1, 2, 5, 13, 40, 300)


def needs(text: str) -> None:
    """Skips a test of a product that this processor does not have."""
    with open("/proc/cpuinfo") as file:
        if text not in file.read():
            pytest.skip(f"the processor has no {text}")


def weight_in(dtype: torch.dtype, shape: tuple[int, int]) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_in_float32_equals_the_plain_one_however_narrow_its_weight_is(
    shape, kept, has_bias
):
    weight = weight_in(kept, shape).float()
    bias = torch.randn(shape[0]) if has_bias else None
    product = panels.exact(weight, bias)
    assert product._panels.dtype == kept
    for rows in ROWS:
        x = torch.randn(1, rows, shape[1])
        expected = F.linear(x, weight, bias)
        got = product(x)
        assert got.shape == expected.shape
        assert float((got - expected).abs().max()) <= 2e-6 * float(expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_in_bfloat16_equals_the_plain_one(shape):
    needs("avx512_bf16")
    weight, bias = weight_in(torch.bfloat16, shape), torch.randn(shape[0]).bfloat16()
    product = panels.exact(weight, bias)
    for rows in ROWS:
        x = torch.randn(rows, shape[1]).bfloat16()
        expected = F.linear(x.float(), weight.float(), bias.float())
        got = product(x)
        assert got.dtype == torch.bfloat16
        assert float((got.float() - expected).abs().max()) <= 4e-3 * float(expected.abs().max())


def rounded(x: Tensor) -> Tensor:
    """What numbers are in steps of a 127th of the largest of each 64."""
    groups = F.pad(x, (0, -x.shape[-1] % panels.GROUP)).unflatten(-1, (-1, panels.GROUP))
    steps = groups.abs().amax(-1, keepdim=True) / 127
    return ((groups / steps).nan_to_num().round() * steps).flatten(-2)[..., : x.shape[-1]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_in_int8_is_that_of_rounded_numbers_and_weights(shape, dtype):
    needs("avx512_vnni")
    weight, bias = weight_in(dtype, shape), torch.randn(shape[0])
    product = panels.int8(weight, bias)
    steps = weight.float().abs().amax(1, keepdim=True) / 127
    for rows in ROWS:
        x = torch.randn(rows, shape[1]).to(dtype)
        expected = F.linear(
            rounded(x.float()), (weight.float() / steps).round() * steps, bias.float()
        )
        tolerance = 1e-4 if dtype == torch.float32 else 5e-3
        assert float((product(x).float() - expected).abs().max()) <= tolerance * float(
            expected.abs().max()
        )


@pytest.mark.parametrize(
    ("dtype", "form"),
    [(torch.float32, "exact"), (torch.bfloat16, "exact"), (torch.float32, "int8")],
)
def test_a_row_is_equal_to_the_bit_whoever_is_beside_it(dtype, form):
    needs("avx512_bf16")
    make = panels.exact if form == "exact" else panels.int8
    product = make(weight_in(torch.bfloat16, (100, 192)).to(dtype), None)
    x = torch.randn(300, 192).to(dtype)
    together = product(x)
    for row in (0, 13, 95, 96, 299):
        assert torch.equal(product(x[row : row + 1])[0], together[row])
    assert torch.equal(product(x[:40]), together[:40])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_a_number_that_is_none_stays_in_its_row(form, value):
    needs("avx512_vnni")
    make = panels.exact if form == "exact" else panels.int8
    product = make(weight_in(torch.float32, (100, 192)), None)
    x = torch.randn(20, 192)
    x[7, 100] = value
    got = product(x)
    assert not got[7].isfinite().any()
    assert got[[row for row in range(20) if row != 7]].isfinite().all()


def test_zeros_are_zeros_in_int8():
    needs("avx512_vnni")
    product = panels.int8(torch.zeros(64, 64), None)
    assert torch.equal(product(torch.randn(3, 64)), torch.zeros(3, 64))
    product = panels.int8(torch.randn(64, 64), None)
    assert torch.equal(product(torch.zeros(3, 64)), torch.zeros(3, 64))


def test_the_smallest_type_that_holds_every_number_is_found():
    half, bfloat = torch.tensor([[1 + 2**-10]]), torch.tensor([[2.0**100]])
    assert panels.narrowest(half) == torch.float16
    assert panels.narrowest(bfloat) == torch.bfloat16
    assert panels.narrowest(torch.cat([half, bfloat])) == torch.float32


class Model(nn.Module):
    """Two layers that read one input, one that reads another, and an output layer."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Linear(64, 40, dtype=dtype)
        self.two = nn.Linear(64, 24, dtype=dtype)
        self.three = nn.Linear(64, 64, dtype=dtype)
        self.embedding = nn.Embedding(50, 64, dtype=dtype)
        self.head = nn.Linear(64, 50, bias=False, dtype=dtype)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.one(x), self.two(x)], -1)
        return self.head(self.three(both))


@pytest.mark.parametrize(
    ("dtype", "form"),
    [(torch.float32, "exact"), (torch.bfloat16, "int8")],
)
def test_a_model_holds_panels_in_place_of_its_weights(dtype, form):
    needs("avx512_vnni")
    model, plain = Model(dtype), Model(dtype)
    with observe(model) as siblings:
        model(torch.randn(3, 64, dtype=dtype))
    assert merge(siblings) == 2
    model.head = GrowingHead(model.head.weight, None, 4, 50)
    assert pack(model) == 1
    assert list(panels.adopt(model, form)) == [None] * 3
    assert isinstance(model.one, MergedLinear)
    assert model.one.weight is model.one.product.merged.weight is model.three.weight is None
    assert all(layer.packed is None for layer in panels.packed_layers(model))
    assert torch.equal(model.head.weight, plain.head.weight), "rows for ids to come"
    x = torch.randn(7, 64, dtype=dtype)
    with torch.inference_mode():
        got, expected = model(x).float(), plain(x).float()
    tolerance = {"exact": 1e-5, "int8": 0.05}[form]
    assert float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())
    model.head.add(plain.head.weight[3].detach(), torch.zeros(()))
    assert model(x).shape[1] == 51


def test_a_layer_of_bfloat16_keeps_the_product_of_onednn():
    layer = packed_or_none(nn.Linear(64, 64, dtype=torch.bfloat16))
    assert "oneDNN" in next(panels.adopt(nn.Sequential(layer), "exact"))
    assert layer.panels is None
    assert layer.packed is not None


def test_a_layer_whose_panels_differ_keeps_its_weight(monkeypatch):
    call = panels.Panels.__call__
    monkeypatch.setattr(panels.Panels, "__call__", lambda self, x: call(self, x) * 1.01)
    layer = packed_or_none(nn.Linear(64, 64))
    reasons = list(panels.adopt(nn.Sequential(layer), "exact"))
    assert "differ by" in reasons[0]
    assert layer.panels is None
    assert layer.weight is not None
