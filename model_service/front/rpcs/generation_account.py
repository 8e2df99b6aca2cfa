"""Counts and times of one generation, as its response reports them."""

import time
from collections.abc import Iterable

from lockstep.v1 import generation_pb2

from model_service.front.checks.plan import Plan
from model_service.front.metrics import ModelMetrics
from model_service.protocol import Finish, SequenceTokens
from model_service.protocol.generation import PositionScores
from wire import times


class Account:
    """Follows a generation from its arrival to its end."""

    def __init__(self, plan: Plan[object], metrics: ModelMetrics) -> None:
        """Starts the clock."""
        self._start = time.monotonic()
        self._plan = plan
        self._metrics = metrics
        self._num_tokens = [0] * len(plan.sequences)
        self._finishes: list[Finish] = []

    def add(self, events: Iterable[SequenceTokens]) -> None:
        """Counts what has arrived."""
        for event in events:
            self._num_tokens[event.row] += len(event.token_ids)
            for scores in (*event.scores, *event.prompt_scores):
                self._count_bytes(scores)
            if event.finish is not None:
                self._finishes.append(event.finish)
                self._metrics.tokens_per_sequence(event.finish, self._num_tokens[event.row])

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
