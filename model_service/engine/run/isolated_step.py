"""A step whose runs may fail: each of the others gets what it would have got without them.

A step that fails is divided until what fails is one run by itself. Memory that was
not enough for all is mostly enough for halves, and for one run when what the failure
left was given back, so it may be that nobody fails.

R: rows of logits wanted, V: ids of the newest revision.
"""

import logging
import traceback
from dataclasses import dataclass

import torch
from torch import Tensor

from model_service.engine.run.runner import Runner
from model_service.engine.sampling import row_failure
from model_service.engine.sequences.run import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step.

    Attributes:
        runs: those that passed through the model.
        logits: `[R, V]` float32 of their targets; None where no run passed.
        failures: the other runs, and what was raised for each.
    """

    runs: list[Run]
    logits: Tensor | None
    failures: list[tuple[Run, Exception]]


def forward(runner: Runner, runs: list[Run]) -> StepResult:
    """Passes runs through the model, as `Runner.forward` does.

    Args:
        runner: has the model.
        runs: of the step, in the order that the runner takes; at least one.

    Raises:
        AcceleratorError: the device has failed, and fails for everybody from now on.
    """
    result = _attempt(runner, runs)
    if not isinstance(result, Exception):
        return StepResult(runs, result, [])
    failure = result
    if row_failure.is_shortage(failure):
        torch.cuda.empty_cache()  # blocks that are free, and too small or too scattered
    if len(runs) == 1:
        again = _attempt(runner, runs) if row_failure.is_shortage(failure) else failure
        if isinstance(again, Exception):
            return StepResult([], None, [(runs[0], again)])
        return StepResult(runs, again, [])
    logger.warning("A step of %d runs failed, and is divided: %s", len(runs), failure)
    half = len(runs) // 2
    return _joined(forward(runner, runs[:half]), forward(runner, runs[half:]))


def _attempt(runner: Runner, runs: list[Run]) -> Tensor | Exception:
    """Returns `[R, V]` float32, or what was raised."""
    try:
        return runner.forward(runs)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        for run in runs:
            run.sequence.note_written(run.num_tokens)
        traceback.clear_frames(error.__traceback__)  # they hold the step's tensors
        return error


def _joined(first: StepResult, second: StepResult) -> StepResult:
    logits = [part.logits for part in (first, second) if part.logits is not None]
    return StepResult(
        first.runs + second.runs,
        torch.cat(logits) if logits else None,
        first.failures + second.failures,
    )
