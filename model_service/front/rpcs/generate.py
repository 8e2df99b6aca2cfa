"""`ModelService`: from prompt to finished sequence."""

import time
from collections.abc import AsyncIterator, Iterable

from lockstep.v1 import generation_pb2, model_service_pb2, model_service_pb2_grpc

from model_service.front import gen_ai
from model_service.front.checks.plan import Plan
from model_service.front.generations import Generations
from model_service.front.metrics.generation_metrics import operation
from model_service.front.rpcs import results, scoring
from model_service.front.rpcs.generation_stream import StreamWriter
from model_service.front.served_model import ServedModel
from model_service.protocol import Finish, Request, SequenceTokens
from model_service.protocol.generation import PositionScores
from rpc import logging
from rpc.handlers import Context
from wire import times
from wire.vocabulary import vocabulary_ref


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Parses, delegates and formats. Failures are raised, and answered by the interceptor."""

    def __init__(self, model: ServedModel, generations: Generations) -> None:
        """Serves a model.

        Args:
            model: the model.
            generations: plans and runs what it generates.
        """
        self._model = model
        self._generations = generations

    async def Generate(
        self, request: model_service_pb2.GenerateRequest, context: Context
    ) -> model_service_pb2.GenerateResponse:
        with self._model.metrics.generations.count_rejections():
            async with self._generations.run(request, in_one_message=True) as generation:
                plan = generation.plan
                account = Account(plan, self._model)
                sequences = [_new_sequence(plan, row) for row in range(len(plan.sequences))]
                async for events in generation.events():
                    account.add(events)
                    for event in events:
                        _extend(sequences[event.row], event)
        return model_service_pb2.GenerateResponse(
            sequences=sequences,
            effective_config=plan.effective_config,
            applied_processors=plan.applied_processors,
            vocabulary=vocabulary_ref(plan.vocabulary),
            usage=account.usage(),
            timing=account.timing(),
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
            session_id=generation.session_id,
        )

    async def GenerateStream(
        self, request: model_service_pb2.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[model_service_pb2.GenerateStreamResponse]:
        with self._model.metrics.generations.count_rejections():
            async with self._generations.run(request.request) as generation:
                plan = generation.plan
                account = Account(plan, self._model)
                writer = StreamWriter(plan, self._model.response_limits.max_chunk_bytes)
                yield model_service_pb2.GenerateStreamResponse(started=self._started(plan))
                async for events in generation.events():
                    account.add(events)
                    for message in writer.write(events):
                        yield message
        completed = model_service_pb2.GenerationCompleted(
            usage=account.usage(), timing=account.timing(), session_id=generation.session_id
        )
        yield model_service_pb2.GenerateStreamResponse(completed=completed)

    async def Score(
        self, request: model_service_pb2.ScoreRequest, context: Context
    ) -> model_service_pb2.ScoreResponse:
        with self._model.metrics.generations.count_rejections():
            return await scoring.score(request, self._model)

    async def ComputeLogits(
        self, request: model_service_pb2.ComputeLogitsRequest, context: Context
    ) -> model_service_pb2.ComputeLogitsResponse:
        with self._model.metrics.generations.count_rejections():
            return await scoring.compute_logits(request, self._model)

    def _started(self, plan: Plan[object]) -> model_service_pb2.GenerationStarted:
        return model_service_pb2.GenerationStarted(
            effective_config=plan.effective_config,
            applied_processors=plan.applied_processors,
            vocabulary=vocabulary_ref(plan.vocabulary),
            seeds=[spec.seed for spec in plan.sequences],
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
        )


def _new_sequence(plan: Plan[object], row: int) -> generation_pb2.GeneratedSequence:
    prompt_index, sequence_index = plan.indices(row)
    return generation_pb2.GeneratedSequence(
        prompt_index=prompt_index, sequence_index=sequence_index, seed=plan.sequences[row].seed
    )


def _extend(sequence: generation_pb2.GeneratedSequence, event: SequenceTokens) -> None:
    sequence.token_ids.extend(event.token_ids)
    sequence.scores.extend(results.position_scores(scores) for scores in event.scores)
    sequence.prompt_scores.extend(results.position_scores(x) for x in event.prompt_scores)
    if event.finish is not None:
        results.write_finish(event.finish, sequence)


class Account:
    """Follows a generation from its arrival to its end."""

    def __init__(self, plan: Plan[Request[SequenceTokens]], model: ServedModel) -> None:
        """Starts the clock."""
        self._tokens = model.quotas.tokens
        self._operation = operation(plan.command)
        self._start = time.monotonic()
        self._plan = plan
        self._metrics = model.metrics.generations
        self._num_tokens = [0] * len(plan.sequences)
        self._finishes: list[Finish] = []

    def add(self, events: Iterable[SequenceTokens]) -> None:
        """Counts what has arrived."""
        for event in events:
            self._num_tokens[event.row] += len(event.token_ids)
            logging.count(generated_tokens=len(event.token_ids))
            self._tokens.use(len(event.token_ids))
            for scores in (*event.scores, *event.prompt_scores):
                self._count_bytes(scores)
            if event.finish is not None:
                self._finishes.append(event.finish)
                self._metrics.answered(self._operation, event.finish, self._num_tokens[event.row])
        if len(self._finishes) == len(self._num_tokens):
            gen_ai.describe_ends(self._finishes)

    def usage(self) -> generation_pb2.Usage:
        """Returns the counts so far."""
        return generation_pb2.Usage(
            prompt_token_count=self._plan.num_prompt_tokens,
            cached_prompt_token_count=sum(f.cached_prompt_tokens for f in self._finishes),
            completion_token_count=sum(self._num_tokens),
            step_count=max((f.steps for f in self._finishes), default=0),
        )

    def timing(self) -> generation_pb2.Timing:
        """Returns where the time went, by the sequence that took longest."""
        slowest = max(self._finishes, key=_total_s, default=Finish("cancelled"))
        return generation_pb2.Timing(
            queue_duration=times.duration(slowest.queue_s),
            prefill_duration=times.duration(slowest.prefill_s),
            decode_duration=times.duration(slowest.decode_s),
            total_duration=times.duration(time.monotonic() - self._start),
        )

    def _count_bytes(self, scores: PositionScores) -> None:
        num_bytes = sum(len(r) for r in (scores.logits, scores.scores) if isinstance(r, bytes))
        if num_bytes:
            self._metrics.scores_sent(scores.dtype, num_bytes)
        elif scores.tokens:
            self._metrics.scores_sent("selected", 8 * len(scores.tokens))


def _total_s(finish: Finish) -> float:
    return finish.queue_s + finish.prefill_s + finish.decode_s
