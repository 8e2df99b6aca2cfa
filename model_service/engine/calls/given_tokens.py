"""Distributions of tokens that were given instead of chosen: of prompts and of steps.

R: rows of logits of the step, V: ids of the newest revision.
"""

from torch import Tensor

from model_service.engine.calls.scores import describe
from model_service.engine.sampling import processors
from model_service.engine.sequences import row_failure
from model_service.engine.sequences.sequence import Run, Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol.generation import ScoreSelection


def record(runs: list[Run], logits: Tensor, revisions: list[RevisionRows]) -> None:
    """Adds to `given_scores` what was asked for about the given tokens of a step.

    Args:
        runs: of the step, after it.
        logits: `[R, V]` float32, rows in the order of the runs' targets.
        revisions: sizes and forbidden ids.
    """
    row = 0
    for run in runs:
        seq, selection = run.sequence, run.sequence.prompt_selection
        start = seq.num_cached - run.length
        for target in run.targets:
            position = start + target + 1
            if selection is not None and position < len(seq.token_ids):
                _describe(seq, position, logits[row], selection, revisions[seq.revision])
            row += 1


def _describe(
    seq: Sequence, position: int, logits: Tensor, selection: ScoreSelection, revision: RevisionRows
) -> None:
    index = position - 1 - seq.first_given
    if selection.positions == "list" and index not in selection.position_list:
        return
    token_id, scores = seq.token_ids[position], None
    try:
        if selection.scores:
            scores = processors.scores(seq, logits[: revision.size], revision.forbidden, position)
        described = describe(seq, selection, position, token_id, logits, scores, revision)
    except Exception as error:
        seq.given_failure = row_failure.of_processors(error, row=seq.row, position=position)
        return
    seq.given_scores.append(described)
