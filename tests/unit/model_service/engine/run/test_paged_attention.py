"""The kernel for GPUs, run by Triton's interpreter, against torch's attention."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from model_service.engine.run.attention import Attend
from model_service.engine.run.page_table import PAGE_TOKENS
from model_service.engine.run.paged_attention import attend

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# Both sides of a page, of a block of keys and of a segment.
LENGTHS = (1, 16, 17, 64, 65, 256, 257, 513)


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widens factors: the interpreter multiplies the bits of bfloat16 as integers."""
    original = interpreter.InterpreterBuilder.create_dot

    def widen(factor):
        if not factor.dtype.scalar.is_bf16():
            return factor
        numbers = (factor.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(numbers, tl.float32)

    def widened(self, a, b, *arguments):
        return original(self, widen(a), widen(b), *arguments)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", widened)


class Step:
    """Tokens of as many slots, whose pages lie in no order; what nobody wrote is NaN."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        heads: int = 4,
        kv_heads: int = 2,
        key_size: int = 16,
        value_size: int = 16,
        dtype: torch.dtype = torch.float32,
        with_sinks: bool = False,
        **options: float | None,
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

        count, per_slot = len(lengths), -(-max(lengths) // PAGE_TOKENS)
        self.lengths, self.options = lengths, options
        self.scaling = key_size**-0.5
        self.query = random(count, heads, key_size)
        self.keys = random(count * per_slot + 1, PAGE_TOKENS, kv_heads, key_size)
        self.values = random(count * per_slot + 1, PAGE_TOKENS, kv_heads, value_size)
        order = torch.randperm(count * per_slot, generator=generator) + 1
        self.table = order.view(count, per_slot).int().to(DEVICE)
        self.sinks = random(heads) if with_sinks else None
        for slot, length in enumerate(lengths):
            for part in (self.keys, self.values):
                flat = part.view(-1, *part.shape[2:])
                places = self.table[slot].long()[:, None] * PAGE_TOKENS + torch.arange(
                    PAGE_TOKENS, device=DEVICE
                )
                flat[places.flatten()[length:]] = torch.nan

    def run(self, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Returns `[T, H, Dv]` of some tokens."""
        rows = list(range(len(self.lengths))) if rows is None else list(rows)
        lengths = torch.tensor([self.lengths[row] for row in rows], device=DEVICE)
        return attend(
            self.query[rows],
            self.keys,
            self.values,
            self.table,
            torch.tensor(rows, device=DEVICE),
            lengths - 1,
            longest=int(lengths.max()),
            scaling=self.scaling,
            sinks=self.sinks,
            **self.options,
        )

    def expected(self, row: int) -> torch.Tensor:
        """Returns `[H, Dv]` of a token, by torch."""
        window = self.options.get("window")
        length, count = self.lengths[row], self.keys.shape[2]
        first = max(0, length - window) if window else 0
        keys, values = (
            part[self.table[row].long()].flatten(0, 1)[None, first:length].transpose(1, 2)
            for part in (self.keys, self.values)
        )
        query = self.query[row].view(1, count, -1, self.query.shape[-1])
        softcap = self.options.get("softcap")
        return Attend(self.scaling, softcap, self.sinks)(query, keys, values, None).view(
            -1, values.shape[-1]
        )


CASES = {
    "grouped heads": {},
    "one head each": {"heads": 3, "kv_heads": 3},
    "one for all": {"heads": 5, "kv_heads": 1},
    "many in a group": {"heads": 24, "kv_heads": 1},
    "heads of 80": {"key_size": 80, "value_size": 80},
    "values of another size": {"key_size": 24, "value_size": 40},
    "window": {"window": 40},
    "window over a segment": {"window": 300},
    "window of one": {"window": 1},
    "soft cap": {"softcap": 0.7},
    "sinks": {"with_sinks": True},
    "all of it": {"window": 70, "softcap": 2.0, "with_sinks": True},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_results_equal_those_of_torch_in_float32(options):
    step = Step(LENGTHS, **options)
    got = step.run()
    for row in range(len(LENGTHS)):
        expected = step.expected(row)
        assert (got[row] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # numpy's, at NaN
def test_results_equal_those_of_torch_in_bfloat16():
    step = Step(LENGTHS, dtype=torch.bfloat16)
    got = step.run().float()
    for row in range(len(LENGTHS)):
        expected = step.expected(row).float()
        assert (got[row] - expected).abs().max() <= 2e-2 * expected.abs().max()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_results_equal_those_of_torch_for_every_length():
    for start in range(1, 601, 50):
        step = Step(range(start, start + 50))
        got = step.run()
        for row in range(50):
            expected = step.expected(row)
            assert (got[row] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("options", [{}, {"window": 40}, {"with_sinks": True}], ids=str)
def test_a_token_alone_gets_the_same_bits_as_in_any_batch(options):
    step = Step((600, 1, 255, 17), **options)
    together = step.run()
    for row in range(4):
        assert torch.equal(step.run([row])[0], together[row])
    assert torch.equal(step.run([3, 1]), together[[3, 1]])


def test_the_kernel_runs_on_the_device_that_has_the_query(monkeypatch):
    seen = []
    original = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: seen.append(x) or original(x))
    step = Step((5,))
    step.run()
    assert [tensor.shape for tensor in seen] == [step.query.shape]
