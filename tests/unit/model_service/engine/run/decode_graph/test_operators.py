"""The C++ operators against the same formulas in float64."""

import pytest
import torch
from torch import Tensor, nn

from model_service.engine.layers.linear import packed_or_none
from model_service.engine.run.decode_graph import operators, tracing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SLOTS, LENGTH = 9, 700
# Both sides of a block of 16 keys and of a segment of 256, in slots out of order, one twice.
SINGLES = [(3, 0), (1, 15), (1, 16), (8, 600), (0, 255), (5, 256), (7, 513)]
# Runs, some behind what was there before: in one block of 64 keys, to its end, and over several.
RUNS = {"short": [(6, i) for i in range(40, 49)], "begun": [(4, i) for i in range(64)]}
RUNS |= {"long": [(2, i) for i in range(100, 300)]}
PLACES = [*SINGLES, *RUNS["short"], *RUNS["begun"], *RUNS["long"]]


class Layer:
    """One layer's random cache, and a step's queries, keys and values."""

    def __init__(self, ops, dtype=torch.float32, heads=3, groups=3, size=64):
        torch.manual_seed(0)
        self.ops = ops
        self.keys = torch.randn(SLOTS, LENGTH, heads, size).to(dtype)
        self.values = torch.randn(SLOTS, LENGTH, heads, size).to(dtype)
        count = len(PLACES)
        # As modeling code hands them over: some transposed, some not.
        self.query = torch.randn(1, count, heads * groups, size).to(dtype).transpose(1, 2)
        self.key = torch.randn(1, heads, count, size).to(dtype)
        self.value = torch.randn(1, count, heads, size).to(dtype).transpose(1, 2)
        self.slots = torch.tensor([slot for slot, _ in PLACES])
        self.positions = torch.tensor([position for _, position in PLACES])
        self.model = ops.new_model()
        ops.add_layer(self.model, self.keys, self.values)

    def attend(self, rows=slice(None), window=0, softcap=0.0, sinks=None) -> Tensor:
        self.ops.begin(self.model, False)
        step = (self.query[:, :, rows], self.key[:, :, rows], self.value[:, :, rows])
        places = (self.slots[rows].contiguous(), self.positions[rows].contiguous())
        return self.ops.attention(*step, *places, 0, 0.125, window, softcap, sinks)

    def expected(self, row: int, window=0, softcap=0.0, sinks=None) -> Tensor:
        slot, end = PLACES[row][0], PLACES[row][1] + 1
        seen = slice(max(0, end - window) if window else 0, end)
        repeats = self.query.shape[1] // self.keys.shape[2]
        keys = self.keys[slot, seen].double().repeat_interleave(repeats, 1)
        values = self.values[slot, seen].double().repeat_interleave(repeats, 1)
        scores = torch.einsum("hd,shd->hs", self.query[0, :, row].double(), keys) * 0.125
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        if sinks is not None:
            scores = torch.cat((scores, sinks.double()[:, None]), 1)
        weights = scores.softmax(-1)[:, : keys.shape[0]]
        return torch.einsum("hs,shd->hd", weights, values)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("heads", "groups", "size"), [(3, 3, 64), (2, 2, 16), (1, 16, 128)])
@pytest.mark.parametrize(
    ("window", "softcap", "has_sinks"),
    [(0, 0.0, False), (8, 0.0, False), (300, 0.0, False), (0, 5.0, False), (8, 0.0, True)],
)
def test_attention_equals_the_formula(
    ops, dtype, bound, heads, groups, size, window, softcap, has_sinks
):
    layer = Layer(ops, dtype, heads, groups, size)
    sinks = torch.randn(heads * groups) if has_sinks else None
    got = layer.attend(window=window, softcap=softcap, sinks=sinks)
    assert got.dtype == dtype
    assert got.shape == (1, len(PLACES), heads * groups, size)
    for row in range(len(PLACES)):
        expected = layer.expected(row, window, softcap, sinks)
        assert float((got[0, row].double() - expected).abs().max()) <= bound


@pytest.mark.parametrize("size", sorted(operators.HEAD_SIZES))
def test_every_size_of_heads_that_is_promised_has_a_kernel(ops, size):
    layer = Layer(ops, heads=1, groups=2, size=size)
    got = layer.attend()
    assert float((got[0, 3].double() - layer.expected(3)).abs().max()) <= 1e-5


def test_a_row_is_equal_to_the_bit_whoever_runs_beside_it(ops):
    layer = Layer(ops)
    together = layer.attend()
    for row in range(len(SINGLES)):
        assert torch.equal(layer.attend(slice(row, row + 1))[0, 0], together[0, row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 50])
@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_equal_to_the_bit_whoever_runs_beside_it(ops, run, window, dtype):
    layer = Layer(ops, dtype)
    start = PLACES.index(RUNS[run][0])
    rows = slice(start, start + len(RUNS[run]))
    assert torch.equal(layer.attend(rows, window)[0], layer.attend(window=window)[0, rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 50])
@pytest.mark.parametrize("length", [8, 32, 64, 97])
def test_a_run_is_equal_to_the_bit_however_it_is_cut(ops, length, window, dtype):
    layer = Layer(ops, dtype)
    start, end = PLACES.index(RUNS["long"][0]), len(PLACES)
    whole = layer.attend(slice(start, end), window)
    starts = range(start, end, length)
    parts = [layer.attend(slice(row, min(row + length, end)), window) for row in starts]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_a_step_writes_its_own_places_and_no_other(ops):
    layer = Layer(ops)
    keys, values = layer.keys.clone(), layer.values.clone()
    layer.attend()
    for index, (slot, position) in enumerate(PLACES):
        keys[slot, position] = layer.key[0, :, index]
        values[slot, position] = layer.value[0, :, index]
    assert torch.equal(layer.keys, keys)
    assert torch.equal(layer.values, values)


def test_a_value_that_is_not_a_number_stays_in_its_row(ops):
    layer = Layer(ops)
    layer.keys[8, 300] = torch.nan
    got = layer.attend()
    assert got[0, 3].isnan().all()
    rows = [row for row in range(len(PLACES)) if row != 3]
    assert got[0, rows].isfinite().all()


@pytest.mark.parametrize(("slot", "position"), [(SLOTS, 0), (-1, 0), (0, LENGTH), (0, -1)])
def test_a_place_outside_of_the_cache_is_refused(ops, slot, position):
    layer = Layer(ops)
    layer.slots[2], layer.positions[2] = slot, position
    with pytest.raises(RuntimeError):
        layer.attend()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_a_product_equals_the_packed_layer_to_the_bit(ops, dtype, bias, rows):
    torch.manual_seed(0)
    layer = packed_or_none(nn.Linear(48, 96, bias=bias, dtype=dtype))
    assert layer is not None
    model = ops.new_model()
    with torch.inference_mode():
        ops.add_reordered(model, layer.packed, layer.weight, layer.bias, layer.plain_rows)
        ops.begin(model, False)
        x = torch.randn(1, rows, 48, dtype=dtype)
        assert torch.equal(ops.packed_product(x, 0, 96), layer(x))


def test_without_a_compiler_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(operators.NoCompiler, match="No C\\+\\+ compiler"):
        operators.build(tmp_path)


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'library.cpp:1:1: error: too modern' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(operators.NoCompiler, match="too modern"):
        operators.build(tmp_path)


def test_a_layer_that_sees_everything_does_so_although_its_model_names_a_window(ops, monkeypatch):
    """As in eager steps: some models pass one to every layer, and their masks decide."""
    layer, module = Layer(ops), nn.Module()
    module.layer_idx = 0
    ops.begin(layer.model, False)
    monkeypatch.setattr(tracing, "_step", ([None], layer.positions, layer.slots))
    given = (module, layer.query, layer.key, layer.value, None)
    got, _ = tracing.traced_attention(*given, scaling=0.125, sliding_window=8)
    assert torch.equal(got, layer.attend())
