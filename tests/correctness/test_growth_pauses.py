"""How long steps wait for growth, by a clock of the test's own; the reserve runs out on the way."""

import time
from pathlib import Path

import numpy as np
import pytest

import checkpoints
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
        waits_s: by step, time that passed.
        work_s: by step, time of the processor, which other processes do not prolong.
    """

    def __init__(self, engine: InprocEngine) -> None:
        self.waits_s: list[float] = []
        self.work_s: list[float] = []
        self._wait_s = self._work_s = 0.0
        growth, runner = engine.engine._growth, engine.engine._runner
        growth.request = self._timed(growth.request)
        growth.advance = self._timed(growth.advance)
        engine.engine._handlers[GrowVocabulary] = growth.request
        forward = runner.forward

        def step(runs):
            self.waits_s.append(self._wait_s)
            self.work_s.append(self._work_s)
            self._wait_s = self._work_s = 0.0
            return forward(runs)

        runner.forward = step

    def _timed(self, work):
        def timed(*arguments):
            start, start_work = time.monotonic(), time.thread_time()
            work(*arguments)
            self._wait_s += time.monotonic() - start
            self._work_s += time.thread_time() - start_work

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


def pauses(folder: Path, dtype: str) -> tuple[Stopwatch, list[float], int]:
    """Grows beside running sequences.

    Returns:
        What the steps waited, the pauses that were reported, in seconds, and how often the
        embedding moved.
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
    while engine.engine.is_growing:
        engine.step()
    assert runner.vocabulary.size == size
    return watch, reported, len(places) - 1


def check(folder: Path, dtype: str) -> float:
    """Returns the longest time that a step waited, in seconds."""
    watch, reported_s, moves = pauses(folder, dtype)
    print(
        f"\n{dtype}: longest wait {max(watch.waits_s) * 1e3:.2f} ms, of which "
        f"{max(watch.work_s) * 1e3:.2f} ms are work, longest reported "
        f"{max(reported_s) * 1e3:.2f} ms, {moves} times into a larger matrix"
    )
    assert moves >= 1
    assert max(watch.work_s) < LONGEST_PAUSE_S
    # The steps after the last report may wait for room that is made for later revisions.
    assert sorted(watch.waits_s)[-2] - 1e-3 <= max(reported_s) <= max(watch.waits_s) + 1e-3
    return max(watch.waits_s)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_a_small_model_never_waits_long_for_growth(dtype, tmp_path):
    check(make_checkpoint(tmp_path / "tiny"), dtype)


@pytest.mark.full
@pytest.mark.default_model
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nor_does_one_of_the_default_model(dtype):
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    assert check(folder, dtype) < LONGEST_PAUSE_S
