"""What calls give, as messages: scores, ends of sequences, rows of sessions, determinism."""

from collections.abc import Callable
from typing import cast

from lockstep.v1 import (
    error_reason_pb2,
    generation_pb2,
    logits_session_service_pb2,
    model_info_service_pb2,
    scores_pb2,
)

from model_service.front.engine_client.call import service_error
from model_service.front.metrics.vocabulary_metrics import FollowState
from model_service.front.vocabulary.following import Following
from model_service.protocol import EngineInfo, Failure, Finish, SequenceSpec, SessionRowAnswer
from model_service.protocol.generation import Dtype, FinishReason, PositionScores
from rpc import status
from wire import tensors, times

_FOLLOW_STATES: dict[FollowState, model_info_service_pb2.VocabularyFollowState] = {
    "base": model_info_service_pb2.VOCABULARY_FOLLOW_STATE_BASE,
    "following": model_info_service_pb2.VOCABULARY_FOLLOW_STATE_FOLLOWING,
    "catching_up": model_info_service_pb2.VOCABULARY_FOLLOW_STATE_CATCHING_UP,
    "disconnected": model_info_service_pb2.VOCABULARY_FOLLOW_STATE_DISCONNECTED,
    "conflict": model_info_service_pb2.VOCABULARY_FOLLOW_STATE_CONFLICT,
}

RowWriter = Callable[[bytes, Dtype], scores_pb2.ScoreRow]
"""Places a full row of a distribution in a message."""


def inline_row(data: bytes, dtype: Dtype) -> scores_pb2.ScoreRow:
    """Writes a row `[V]` into the message itself."""
    return scores_pb2.ScoreRow(tensor=tensors.vector(data, dtype))


def position_scores(
    scores: PositionScores, write_row: RowWriter = inline_row
) -> scores_pb2.PositionScores:
    """Writes what was asked for about one position.

    Args:
        scores: the values; rows have left the shared ring.
        write_row: where full rows go.
    """
    message = scores_pb2.PositionScores(
        position=scores.position,
        token_id=scores.token_id,
        logits_logsumexp=scores.logits_logsumexp,
        scores_logsumexp=scores.scores_logsumexp,
        entropy=scores.entropy,
        rank=scores.rank,
        logits_logprob=scores.logits_logprob,
        scores_logprob=scores.scores_logprob,
        tokens=[
            scores_pb2.TokenScore(token_id=token.token_id, logit=token.logit, score=token.score)
            for token in scores.tokens
        ],
    )
    for entry in scores.processor_trace:
        message.processor_trace.add(
            processor=entry.processor,
            score=entry.score,
            logsumexp=entry.logsumexp,
            token_scores=entry.token_scores,
        )
    if isinstance(scores.logits, bytes):
        message.logits.CopyFrom(write_row(scores.logits, scores.dtype))
    if isinstance(scores.scores, bytes):
        message.scores.CopyFrom(write_row(scores.scores, scores.dtype))
    return message


def finish_reason(reason: FinishReason) -> generation_pb2.FinishReason:
    """Names why a sequence ended."""
    value = generation_pb2.FinishReason.Value(f"FINISH_REASON_{reason.upper()}")
    return cast(generation_pb2.FinishReason, value)


def write_finish(finish: Finish, sequence: generation_pb2.GeneratedSequence) -> None:
    """Writes how a sequence ended."""
    sequence.finish_reason = finish_reason(finish.reason)
    sequence.stop_string = finish.stop_string
    if finish.sequence_score is not None:
        sequence.sequence_score = finish.sequence_score
    sequence.beam_indices.extend(finish.beam_indices)
    if error := item_error(finish.failure):
        sequence.error.CopyFrom(error)


def item_error(failure: Failure | None) -> error_reason_pb2.ItemError | None:
    """Writes the failure of one row of a call that goes on for the others."""
    return None if failure is None else status.item_error(service_error(failure))


def vocabulary_following(following: Following) -> model_info_service_pb2.VocabularyFollowing:
    """Says how far the vocabulary has kept up with the tokenizer service's."""
    message = model_info_service_pb2.VocabularyFollowing(
        state=_FOLLOW_STATES[following.state],
        reason=following.reason,
        lag_revision_count=following.lag,
    )
    if following.silence_s is not None:
        message.silence.CopyFrom(times.duration(following.silence_s))
    return message


def determinism(info: EngineInfo, model_fingerprint: str) -> generation_pb2.Determinism:
    """Says how far results can be reproduced."""
    return generation_pb2.Determinism(
        level=generation_pb2.DETERMINISM_LEVEL_SEEDED,
        dtype=info.dtype,
        rng=info.rng,
        attention=info.attention,
        model_fingerprint=model_fingerprint,
        weight_format=info.weight_format,
    )


def opened_row(row: SessionRowAnswer, spec: SequenceSpec) -> logits_session_service_pb2.SessionRow:
    """Writes a row of a session that was opened."""
    return logits_session_service_pb2.SessionRow(
        position=row.position,
        seed=spec.seed,
        prompt_token_count=spec.prompt_length,
        sampled_token_id=row.sampled_token_id,
        finish_reason=finish_reason(row.finish_reason) if row.finish_reason else None,
    )


def step_row_result(
    row: SessionRowAnswer, seed: int, write_row: RowWriter = inline_row
) -> logits_session_service_pb2.StepRowResult:
    """Writes the outcome of a step for one row.

    Args:
        row: the outcome.
        seed: the seed of the row's draws.
        write_row: where full rows go.
    """
    return logits_session_service_pb2.StepRowResult(
        position=row.position,
        scores=[position_scores(scores, write_row) for scores in row.scores],
        sampled_token_id=row.sampled_token_id,
        finish_reason=finish_reason(row.finish_reason) if row.finish_reason else None,
        error=item_error(row.failure),
        seed=None if row.sampled_token_id is None else seed,
    )
