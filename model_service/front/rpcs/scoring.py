"""Distributions without generation: `ComputeLogits` and `Score`.

Both open a session, take its answer and close it; nothing is kept.
"""

from dataclasses import replace

import msgspec
from lockstep.v1 import generation_pb2, model_service_pb2

from model_service.front import gen_ai
from model_service.front.checks.opening import AskedOpening
from model_service.front.checks.plan import Plan
from model_service.front.checks.prompts import read_continuations, read_prompts
from model_service.front.engine_client.call import service_error
from model_service.front.metrics.generation_metrics import PromptOperation
from model_service.front.rpcs import results
from model_service.front.served_model import ServedModel
from model_service.protocol import CloseSession, OpenSession, SessionAnswer, SessionRowAnswer
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

_REMEDY = (
    "Ask for fewer ids, fewer positions or a smaller dtype, send fewer prompts in a call, or use a "
    "session and its StepStream with accept_chunks."
)


async def compute_logits(
    request: model_service_pb2.ComputeLogitsRequest, model: ServedModel
) -> model_service_pb2.ComputeLogitsResponse:
    """Computes the distribution after each prompt.

    Raises:
        ServiceError: the request is wrong, or a row failed.
    """
    vocabulary = await model.resolve_vocabulary(request)
    violations = Violations()
    asked = AskedOpening(
        violations=violations,
        rows=read_prompts(request.prompt, violations, model.bounds),
        config=request.generation_config if request.HasField("generation_config") else None,
        scores=request.scores if request.HasField("scores") else None,
    )
    plan = model.plan(asked, vocabulary)
    answer = await _run(plan, model, "compute_logits")
    return model_service_pb2.ComputeLogitsResponse(
        rows=[
            model_service_pb2.PositionScoresList(
                scores=[results.position_scores(scores) for scores in row.scores]
            )
            for row in answer.rows
        ],
        vocabulary=vocabulary_ref(vocabulary),
        usage=_usage(plan, answer),
        determinism=results.determinism(model.engine.info, model.fingerprint),
    )


async def score(
    request: model_service_pb2.ScoreRequest, model: ServedModel
) -> model_service_pb2.ScoreResponse:
    """Computes the probabilities of given tokens.

    The first token of a row has no distribution and is never scored.

    Raises:
        ServiceError: the request is wrong, or a row failed.
    """
    vocabulary = await model.resolve_vocabulary(request)
    violations = Violations()
    rows, starts = _read_rows(request, violations, model)
    asked = AskedOpening(
        violations=violations,
        rows=rows,
        config=request.generation_config if request.HasField("generation_config") else None,
        scores=request.scores,
        use="scored",
        num_prompt_tokens=starts if request.HasField("continuations") else None,
    )
    plan = model.plan(asked, vocabulary)
    selection = plan.command.selection
    command = msgspec.structs.replace(
        plan.command, selection=msgspec.structs.replace(selection, logprob=True, rank=True)
    )
    answer = await _run(replace(plan, command=command), model, "score")
    return model_service_pb2.ScoreResponse(
        sequences=[
            _scored_sequence(row, start, keep_rank=selection.rank)
            for row, start in zip(answer.rows, starts, strict=True)
        ],
        vocabulary=vocabulary_ref(vocabulary),
        usage=_usage(plan, answer),
        determinism=results.determinism(model.engine.info, model.fingerprint),
    )


def _read_rows(
    request: model_service_pb2.ScoreRequest, violations: Violations, model: ServedModel
) -> tuple[list[list[int]], list[int]]:
    """Reads rows, and the index of the first token to score in each."""
    continued = request.HasField("continuations")
    prompts = read_prompts(request.prompt, violations, model.bounds, allow_empty_rows=continued)
    if not continued:
        _check_tokens_to_score("prompt", prompts, prompts, violations)
        return prompts, [1] * len(prompts)
    continuations = read_continuations(request.continuations, violations, model.bounds)
    if len(continuations) != len(prompts):
        violations.add("continuations", f"must have one row per prompt, {len(prompts)}")
        return prompts, [1] * len(prompts)
    rows = [a + b for a, b in zip(prompts, continuations, strict=True)]
    _check_tokens_to_score("continuations", rows, continuations, violations)
    return rows, [max(1, len(prompt)) for prompt in prompts]


def _check_tokens_to_score(
    field: str, rows: list[list[int]], given: list[list[int]], violations: Violations
) -> None:
    """Notes rows of a single token. Those that are given nothing to score are noted already."""
    for row, (ids, scored) in enumerate(zip(rows, given, strict=True)):
        if len(ids) == 1 and scored:
            violations.add(
                field, f"row {row} has no token to score: the first of a row has none before it"
            )


async def _run(
    plan: Plan[OpenSession], model: ServedModel, operation: PromptOperation
) -> SessionAnswer:
    """Runs the rows once.

    Raises:
        ServiceError: the answer is too large, the engine refused the rows, or one failed.
    """
    model.response_limits.check_message(plan.response_bytes, _REMEDY)
    model.check_open(plan.num_prompt_tokens)
    model.quotas.tokens.use(plan.num_prompt_tokens)
    close = CloseSession(plan.command.session_id)
    answer = await model.engine.ask(plan.command, undo=[close])
    model.engine.tell(close)
    model.metrics.generations.admitted(operation, plan.prompt_lengths)
    gen_ai.describe_request(model.name, operation)
    for row in answer.rows:
        if row.failure is not None:
            raise service_error(row.failure)
    return answer


def _scored_sequence(
    row: SessionRowAnswer, start: int, *, keep_rank: bool
) -> model_service_pb2.ScoredSequence:
    """Keeps the positions from `start` on that have a token."""
    scored = [s for s in row.scores if s.position >= start and s.token_id is not None]
    messages = [results.position_scores(scores) for scores in scored]
    if not keep_rank:
        for message in messages:
            message.ClearField("rank")
    return model_service_pb2.ScoredSequence(
        scores=messages,
        logits_logprob=sum(scores.logits_logprob or 0.0 for scores in scored),
        greedy=all(scores.rank == 1 for scores in scored),
    )


def _usage(plan: Plan[OpenSession], answer: SessionAnswer) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        prompt_token_count=plan.num_prompt_tokens,
        cached_prompt_token_count=answer.cached_tokens,
    )
