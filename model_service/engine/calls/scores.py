"""What is reported about a distribution: rows, chosen ids, statistics.

V: ids of the sequence's revision.
"""

from collections.abc import Callable

import msgspec
import numpy as np
import torch
from torch import Tensor

from model_service.engine.sampling import processors
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import Event, SequenceTokens, SessionAnswer
from model_service.protocol.generation import PositionScores, Row, ScoreSelection, TokenScore

TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

PutRow = Callable[[memoryview], Row]


def describe(
    seq: Sequence,
    selection: ScoreSelection,
    position: int,
    token_id: int | None,
    logits: Tensor,
    scores: Tensor | None,
) -> PositionScores:
    """Describes the distribution at one position of a sequence.

    Args:
        seq: the sequence, which has the tokens before `position`, and maybe more.
        selection: what is wanted.
        position: index of the token that the distribution predicts.
        token_id: that token, when there is one.
        logits: `[W]` float32, raw, `W` at least V.
        scores: `[V]` float32, processed, which are there also where Hugging Face's classes chose;
            None where nothing needed them.

    Raises:
        ProcessorError: a processor failed.
    """
    logits = logits[: seq.choosing.revision.size]
    wanted = scores if selection.scores else None
    described = report(selection, position, token_id, logits, wanted)
    if not selection.processor_trace or (token_id is None and not described.tokens):
        return described
    guide_logits = None if seq.guidance is None else seq.guidance.guide_logits
    trace = processors.trace(
        seq.choosing,
        seq.token_ids[:position],
        logits,
        token_id,
        guide_logits,
        selected=[token.token_id for token in described.tokens],
        logsumexp=selection.logsumexp,
    )
    return msgspec.structs.replace(described, processor_trace=trace)


@torch.inference_mode()
@one_thread()
def report(
    selection: ScoreSelection,
    position: int,
    token_id: int | None,
    logits: Tensor,
    scores: Tensor | None,
) -> PositionScores:
    """Describes one distribution. Full rows are bytes of their own until they are shipped.

    Args:
        selection: what is wanted.
        position: index of the token that the distribution predicts.
        token_id: that token, when there is one.
        logits: `[V]` float32, raw.
        scores: `[V]` float32, processed, on any device; None when not wanted.
    """
    full = selection.amount == "full"
    wants_logits = selection.logits
    wants_logprob = (wants_logits or selection.logprob) and token_id is not None
    lse = _logsumexp(logits) if wants_logits or wants_logprob else None
    scores_lse = None if scores is None else _logsumexp(scores)
    return PositionScores(
        position=position,
        token_id=token_id,
        logits=_row(logits, selection) if full and wants_logits else None,
        scores=_row(scores, selection) if full and scores is not None else None,
        dtype=selection.dtype,
        tokens=_tokens(selection, logits, scores),
        logits_logsumexp=lse if selection.logsumexp and wants_logits else None,
        scores_logsumexp=scores_lse if selection.logsumexp else None,
        entropy=_entropy(logits) if selection.entropy else None,
        rank=_rank(logits, token_id) if selection.rank and token_id is not None else None,
        logits_logprob=(
            float(logits[token_id]) - lse
            if wants_logprob and lse is not None and token_id is not None
            else None
        ),
        scores_logprob=(
            float(scores[token_id]) - scores_lse
            if scores is not None and scores_lse is not None and token_id is not None
            else None
        ),
    )


def _row(values: Tensor, selection: ScoreSelection) -> bytes:
    converted = values.to("cpu", TORCH_DTYPES[selection.dtype]).contiguous()
    return converted.view(torch.uint8).numpy().tobytes()


def ship(event: Event, put: PutRow) -> None:
    """Moves the full rows of an event to where `put` says, in place.

    Called when the event is emitted and not earlier: the reader of the ring
    takes rows in the order in which they were put, and gives the memory before
    the newest one free.
    """
    for scores in _score_lists(event):
        scores[:] = [_shipped(position, put) for position in scores]


def _score_lists(event: Event) -> list[list[PositionScores]]:
    if isinstance(event, SequenceTokens):
        return [event.prompt_scores, event.scores]
    if isinstance(event, SessionAnswer):
        return [row.scores for row in event.rows]
    return []


def _shipped(position: PositionScores, put: PutRow) -> PositionScores:
    if position.logits is None and position.scores is None:
        return position
    return msgspec.structs.replace(
        position, logits=_put(position.logits, put), scores=_put(position.scores, put)
    )


def _put(row: Row | None, put: PutRow) -> Row | None:
    return put(memoryview(row)) if isinstance(row, bytes) else row


def _tokens(selection: ScoreSelection, logits: Tensor, scores: Tensor | None) -> list[TokenScore]:
    if selection.amount == "top_k":
        ranked = logits if selection.logits or scores is None else scores
        ids = top_ids(ranked, selection.top_k)
        if selection.top_k_of_both and scores is not None:
            ids = _with_top_scores(ids.cpu(), scores.cpu(), selection.top_k)
    elif selection.amount == "token_ids":
        ids = torch.tensor(selection.token_ids, dtype=torch.int64)
    else:
        return []
    ids = ids.cpu()  # an index may be there, whatever device holds what it indexes
    raw = logits[ids].tolist() if selection.logits else [None] * len(ids)
    processed = scores[ids].tolist() if scores is not None else [None] * len(ids)
    return [TokenScore(*entry) for entry in zip(ids.tolist(), raw, processed, strict=True)]


def _with_top_scores(ids: Tensor, scores: Tensor, count: int) -> Tensor:
    """Appends the ids of the highest scores `[V]` that are not excluded, each id once."""
    best = top_ids(scores, count)
    new = ~torch.isin(best, ids) & (scores[best] > -torch.inf)
    return torch.cat((ids, best[new]))


def top_ids(values: Tensor, count: int) -> Tensor:
    """Returns the ids of the highest values `[V]`, ties to the lowest id: `[count]` int64."""
    count = min(count, len(values))
    threshold = values.topk(count).values[-1]
    ids = (values >= threshold).nonzero()[:, 0]  # ascending, with all ties
    order = values[ids].sort(descending=True, stable=True).indices
    return ids[order[:count]]


def _logsumexp(values: Tensor) -> float:
    return float(values.double().logsumexp(-1))


def _entropy(logits: Tensor) -> float:
    logprobs = logits.double().log_softmax(-1)
    terms = logprobs.exp() * logprobs
    return -float(terms.nan_to_num(nan=0.0).sum())  # 0 log 0 = 0


def _rank(logits: Tensor, token_id: int) -> int:
    """1 plus the number of ids with a higher logit, or an equal one and a lower id."""
    value = logits[token_id]
    return 1 + int((logits > value).sum()) + int((logits[:token_id] == value).sum())


def row_to_array(row: bytes, dtype: str) -> np.ndarray:
    """Reads a row back as float32, `[V]`."""
    tensor = torch.frombuffer(bytearray(row), dtype=TORCH_DTYPES[dtype])
    return tensor.float().numpy()
