"""Calls of `Generate` with beams: searches that run to their end on their own.

Which tokens a search returns is known for sure only at its end, so nothing is
sent before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model_service.engine.calls.beam_group import BeamGroup
from model_service.engine.calls.sequence_building import SequenceBuilder
from model_service.engine.sampling import row_failure
from model_service.engine.sampling.sampler import Choice
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import Event, Failure, Generate, Rejected, SequenceTokens


class Beams:
    """Starts searches, hands them what the model says, and ends them."""

    def __init__(
        self,
        scheduler: Scheduler,
        builder: SequenceBuilder,
        *,
        context_length: int,
        kv_total_tokens: int,
        copy: Callable[[Sequence, Sequence], None],
        emit: Callable[[Event], None],
    ) -> None:
        """Starts without searches.

        Args:
            scheduler: what rows are queued in.
            builder: makes sequences of commands.
            context_length: most tokens of a sequence.
            kv_total_tokens: tokens of KV cache in total.
            copy: copies what is cached of one row to the slot of another with the same tokens.
            emit: sends an event.
        """
        self._scheduler = scheduler
        self._builder = builder
        self._context_length = context_length
        self._kv_total_tokens = kv_total_tokens
        self._copy = copy
        self._emit = emit
        self._calls: dict[int, dict[int, BeamGroup]] = {}  # by request and first row

    def start(self, command: Generate) -> None:
        """Queues the searches of a call, or rejects a call of which one would never fit."""
        num_results = command.sequences_per_prompt
        groups = {
            row: BeamGroup(self._sequence(command, row), num_results)
            for row in range(0, len(command.sequences), num_results)
        }
        largest = max(group.first.max_length for group in groups.values())
        needed = command.config.num_beams * largest
        if needed > self._kv_total_tokens:
            arguments = {"kv_tokens": needed, "limit_tokens": self._kv_total_tokens}
            self._emit(Rejected(command.request_id, Failure("KVCacheExceeded", arguments)))
            return
        self._calls[command.request_id] = groups
        for group in groups.values():
            self._scheduler.add(group.first)

    def answer(self, seq: Sequence, choice: Choice, logits: Tensor) -> None:
        """Takes what follows one beam; the search goes on once all of them are there.

        Args:
            seq: the row.
            choice: its scores, or why there are none.
            logits: `[W]` float32, raw.
        """
        group = self._calls.get(seq.call.request_id, {}).get(seq.row)
        if group is None:  # another of its rows has failed in the same step
            return
        failure = choice.failure or group.first.call.given_failure
        if choice.scores is None or failure is not None:
            assert failure is not None
            self._end(group, list(group.failures(failure)))
            return
        try:
            group.arrive(seq, logits[: len(choice.scores)], choice.scores)
            if not group.is_complete:
                return
            group.choose()
            if not group.is_done:
                group.move(self._copy)
                return
            events = list(group.results())
        except Exception as error:
            events = list(group.failures(row_failure.internal(error)))
        self._end(group, events)

    def fail(self, seq: Sequence, failure: Failure) -> None:
        """Ends a sequence that could not pass through the model."""
        self.answer(seq, Choice(failure=failure), torch.empty(0))

    def cancel(self, request_id: int) -> None:
        """Drops the searches of a call. An unknown one is ignored."""
        for group in self._calls.pop(request_id, {}).values():
            self._scheduler.remove(group.first)

    def _sequence(self, command: Generate, row: int) -> Sequence:
        """Builds the first row of a search, which has the prompt, with the others."""
        seq = self._builder.generating(command, row, self, self._context_length)
        seq.add_companions(command.config.num_beams - 1)
        return seq

    def _end(self, group: BeamGroup, events: list[SequenceTokens]) -> None:
        for event in events:
            self._emit(event)
        self._scheduler.remove(group.first)
        request_id = group.first.call.request_id
        groups = self._calls[request_id]
        del groups[group.first.row]
        if not groups:
            del self._calls[request_id]
