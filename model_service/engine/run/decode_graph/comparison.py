"""Compares compiled steps, and the attention kernel, with what they stand in for.

T: tokens of a step, H: query heads, K: key-value heads, D: head size, V: ids.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from model_service.engine.layers import masked_logits
from model_service.engine.run.attention import Attend
from model_service.engine.run.kv_cache import KVCache
from model_service.engine.run.runner import CachingRunner
from model_service.engine.run.trial_sequences import TrialSequences
from model_service.engine.sequences.run import Run

# Largest difference, relative to the largest value.
LOGITS_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
ATTENTION_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

# Rows of a trial. The KV cache has slots for them in addition to the slots of sequences.
LENGTHS = (7, 9, 23)

# Tokens that each row passes in a step, all in the end: prompts together, one that goes on beside
# decoding rows, short runs as with drafts, and decoding rows.
STEPS: tuple[tuple[int, ...], ...] = ((2, 4, 13), (1, 1, 6), (2, 2, 2), (1, 1, 1), (1, 1, 1))

# The same where the last row is alone.
SINGLE_STEPS: tuple[tuple[int, ...], ...] = ((18,), (1,), (1,), (1,), (1,), (1,))

# Runs of the attention check, by position of the first token and length: both sides of a block of
# keys and of a segment, and runs that begin and end within a block or go over several.
RUNS = ((0, 1), (14, 1), (15, 1), (16, 1), (255, 1), (256, 1), (299, 1), (0, 70), (250, 9), (60, 4))
WINDOWS = (0, 8)
GROUPS = 3


class Unequal(Exception):
    """Results differ. The message says by how much."""


def compare_steps(
    runner: CachingRunner, tolerance: float, single: bool, attempt: Callable[[list[Run]], Tensor]
) -> Iterator[None]:
    """Passes the same tokens both ways, a step at a time.

    Args:
        runner: runs steps as they run now.
        tolerance: largest difference, relative to the largest logit.
        single: whether one row decodes alone, or steps have several tokens.
        attempt: runs a step the other way; returns its logits, `[R, V]` float32.

    Raises:
        Unequal: the logits differ.
    """
    generator = torch.Generator().manual_seed(0)
    size = runner.vocabulary.num_usable
    steps = SINGLE_STEPS if single else STEPS
    with TrialSequences(runner) as trial:
        sequences = []
        for length in LENGTHS[-len(steps[0]) :]:
            ids = torch.randint(size, (length,), generator=generator).tolist()
            sequences.append(trial.sequence(ids))
        sequences.sort(key=lambda seq: seq.slot or 0)

        def runs(lengths: tuple[int, ...]) -> list[Run]:
            pairs = zip(sequences, lengths, strict=True)
            return [Run(seq, length, (length - 1,)) for seq, length in pairs]

        expected = []
        for lengths in steps:
            expected.append(runner.forward(runs(lengths)))
            yield
        for seq in sequences:
            seq.truncate(len(seq.token_ids), 0)
        for lengths, logits in zip(steps, expected, strict=True):
            got = attempt(runs(lengths))
            _check("Logits of a compiled step", got, logits, tolerance)
            yield


@torch.inference_mode()
def check_attention(kv_cache: KVCache) -> None:
    """Compares the kernel with torch's attention, for the shapes of a model's layers.

    Raises:
        Unequal: they differ, or what was to be written was not.
    """
    shapes = set()
    for layer in kv_cache.slot_layers:
        assert layer.k is not None
        shapes.add(layer.k.data.shape[2:])
    for heads, size in shapes:
        for window in WINDOWS:
            _check_attention(heads, size, window, kv_cache.dtype)


def _check_attention(heads: int, size: int, window: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    backwards = reversed(range(len(RUNS)))
    places = [
        (slot, first + i)
        for slot, (first, length) in zip(backwards, RUNS, strict=True)
        for i in range(length)
    ]
    count, length = len(places), max(position for _, position in places) + 1
    keys, values = (random(len(RUNS), length, heads, size) for _ in range(2))
    query = random(1, heads * GROUPS, count, size)
    key, value = random(1, heads, count, size), random(1, heads, count, size)
    slots, positions = torch.tensor(places).T.contiguous()
    ops = torch.ops.lockstep
    model = ops.new_model()
    try:
        ops.add_layer(model, keys, values)
        ops.begin(model, False)
        scale = size**-0.5
        got = ops.attention(query, key, value, slots, positions, 0, scale, window, 0.0, None)
    finally:
        ops.end()
        ops.free_model(model)
    for row, (slot, position) in enumerate(places):
        first = max(0, position + 1 - window) if window else 0
        if not torch.equal(keys[slot, position], key[0, :, row]):
            raise Unequal("The attention kernel does not write keys where they belong.")
        seen = slice(first, position + 1)
        expected = Attend(scale, None, None)(
            query[:, :, row].view(1, heads, GROUPS, size),
            keys[slot : slot + 1, seen].transpose(1, 2),
            values[slot : slot + 1, seen].transpose(1, 2),
            None,
        )
        tolerance = ATTENTION_TOLERANCE[dtype]
        _check("Results of the attention kernel", got[0, row], expected.view(-1, size), tolerance)


def _check(what: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    got, expected = masked_logits.comparable(got, expected)
    difference = float((got.float() - expected.float()).abs().max())
    scale = float(expected.float().abs().max())
    if not difference <= tolerance * scale:
        raise Unequal(f"{what} differ by {difference:.3g} at a scale of {scale:.3g}.")
