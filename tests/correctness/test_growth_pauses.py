"""How long steps wait for growth, measured by the test itself; the reserve runs out on the way.

The clock is the processor's time of this thread, here and in the engine, since on a machine
with other work a pause by the clock on the wall says little of what growth takes.
"""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import checkpoints
from model_service.engine.vocabulary import growth
from model_service.protocol import GrowVocabulary, NewRow, VocabularyGrown
from tests.checkpoint_factory import make_checkpoint
from tests.engine_harness import InprocEngine

LONGEST_PAUSE_S = 0.05
RESERVED = 256
REVISIONS, TOKENS = 12, 64  # as many tokens as one call may add
SEQUENCES = 4


class Stopwatch:
    """Sums up, from outside, what growth takes between two steps.

    Attributes:
        waits_s: by step.
    """

    def __init__(self, engine: InprocEngine) -> None:
        self.waits_s: list[float] = []
        self._wait_s = 0.0
        growth, runner = engine.engine._growth, engine.engine._runner
        growth.request = self._timed(growth.request)
        growth.advance = self._timed(growth.advance)
        engine.engine._handlers[GrowVocabulary] = growth.request
        forward = runner.forward

        def step(runs):
            self.waits_s.append(self._wait_s)
            self._wait_s = 0.0
            return forward(runs)

        runner.forward = step

    def _timed(self, work):
        def timed(*arguments):
            start = time.thread_time()
            work(*arguments)
            self._wait_s += time.thread_time() - start

        return timed


def revision(number: int, size: int, width: int) -> GrowVocabulary:
    """Trained vectors in every other token: the largest command, and the most work."""
    generator = np.random.default_rng(number)
    rows = []
    for index in range(TOKENS):
        if index % 2:
            data = generator.standard_normal(width).astype("<f4").tobytes()
            row = NewRow(size + index, "values", False, input_values=data)
        else:
            pieces = generator.integers(size, size=6).tolist()
            row = NewRow(size + index, "mean_of_pieces", False, previous_ids=pieces)
        rows.append(row)
    return GrowVocabulary(number, rows, request_id=10**6 + number)


@pytest.fixture(autouse=True)
def work_only(monkeypatch):
    monkeypatch.setattr(growth, "time", SimpleNamespace(monotonic=time.thread_time))


def pauses(folder: Path, dtype: str) -> tuple[list[float], list[float], int]:
    """Grows beside running sequences.

    Returns:
        What the steps waited until the last report, the pauses that were reported, in seconds,
        and how often the embedding moved.
    """
    engine = InprocEngine(
        folder, dtype=dtype, reserved_vocabulary_rows=RESERVED, max_kv_tokens=4096
    )
    watch, runner = Stopwatch(engine), engine.engine._runner
    size, width = engine.info.vocabulary_size, engine.info.hidden_size
    engine.submit([[5, 6, 7]] * SEQUENCES, max_new_tokens=400)
    reported, places = [], {runner._embedding.weight.data_ptr()}
    for number in range(1, REVISIONS + 1):
        for _ in range(3):
            engine.step()
        engine.handle(revision(number, size, width))
        size += TOKENS
        while len(reported) < number:
            events = engine.step() or []
            reported += [event.pause_s for event in events if isinstance(event, VocabularyGrown)]
        places.add(runner._embedding.weight.data_ptr())
    # Later steps may wait for room that is made for revisions to come.
    waits_s = list(watch.waits_s)
    while engine.engine.is_growing:
        engine.step()
    assert runner.vocabulary.size == size
    return waits_s, reported, len(places) - 1


def check(folder: Path, dtype: str) -> None:
    waits_s, reported_s, moves = pauses(folder, dtype)
    print(
        f"\n{dtype}: longest wait {max(waits_s) * 1e3:.2f} ms, longest reported "
        f"{max(reported_s) * 1e3:.2f} ms, {moves} times into a larger matrix"
    )
    assert moves >= 1
    assert max(waits_s) < LONGEST_PAUSE_S
    assert max(waits_s) - 1e-3 <= max(reported_s) <= max(waits_s) + 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_a_small_model_never_waits_long_for_growth(dtype, tmp_path):
    check(make_checkpoint(tmp_path / "tiny"), dtype)


@pytest.mark.full
@pytest.mark.default_model
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nor_does_one_of_the_default_model(dtype):
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    check(folder, dtype)
