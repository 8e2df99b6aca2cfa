"""Distributions of tokens that were given instead of chosen: of prompts and of steps.

R: rows of logits of the step, V: ids of the newest revision.
"""

from torch import Tensor

from model_service.engine.calls.scores import describe
from model_service.engine.sampling import gpu_rows, processors, row_failure
from model_service.engine.sequences.run import Run
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.generation import ScoreSelection


def record(runs: list[Run], logits: Tensor) -> None:
    """Adds to `given_scores` what was asked for about the given tokens of a step.

    Args:
        runs: of the step, after it.
        logits: `[R, V]` float32, rows in the order of the runs' targets.
    """
    wanted: list[tuple[Sequence, int, ScoreSelection]] = []
    rows: list[int] = []
    row = 0
    for run in runs:
        seq, selection = run.sequence, run.sequence.call.prompt_selection
        start = seq.num_cached - run.length
        for target in run.targets:
            position = start + target + 1
            if selection is not None and _is_wanted(seq, position, selection):
                wanted.append((seq, position, selection))
                rows.append(row)
            row += 1
    for entry, given in zip(wanted, gpu_rows.bring(logits, rows), strict=True):
        _describe(*entry, given)


def _is_wanted(seq: Sequence, position: int, selection: ScoreSelection) -> bool:
    index = position - 1 - seq.call.first_given
    listed = selection.positions != "list" or index in selection.position_list
    return listed and position < len(seq.token_ids)


def _describe(seq: Sequence, position: int, selection: ScoreSelection, logits: Tensor) -> None:
    call, choosing = seq.call, seq.choosing
    token_id, scores = seq.token_ids[position], None
    try:
        if selection.scores:
            usable = logits[: choosing.revision.size]
            scores = processors.scores(choosing, seq.token_ids[:position], usable)
        described = describe(seq, selection, position, token_id, logits, scores)
    except Exception as error:
        call.given_failure = row_failure.of_processors(error, row=seq.row, position=position)
        return
    call.given_scores.append(described)
