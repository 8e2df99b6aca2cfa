"""Calls of `Generate`: sequences that run to their end on their own."""

from collections.abc import Callable

import torch
from torch import Tensor

from model_service.engine.calls.scores import describe
from model_service.engine.calls.sequence_building import SequenceBuilder
from model_service.engine.sampling import row_failure
from model_service.engine.sampling.sampler import Choice
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.prompt_lookup import PromptLookup
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import Event, Failure, Generate, Rejected, SequenceTokens


class GenerateCalls:
    """Starts sequences, appends what is chosen for them, and ends them."""

    def __init__(
        self,
        scheduler: Scheduler,
        builder: SequenceBuilder,
        *,
        context_length: int,
        kv_total_tokens: int,
        emit: Callable[[Event], None],
    ) -> None:
        """Starts without sequences.

        Args:
            scheduler: what sequences are queued in.
            builder: makes sequences of commands.
            context_length: most tokens of a sequence.
            kv_total_tokens: tokens of KV cache in total.
            emit: sends an event.
        """
        self._scheduler = scheduler
        self._builder = builder
        self._context_length = context_length
        self._kv_total_tokens = kv_total_tokens
        self._emit = emit
        self._calls: dict[int, list[Sequence]] = {}

    def start(self, command: Generate) -> None:
        """Queues the sequences of a call, or rejects a call that would never fit."""
        sequences = [self._sequence(command, row) for row in range(len(command.sequences))]
        largest = max(
            sum(member.max_length for member in (seq, *seq.companions)) for seq in sequences
        )
        if largest > self._kv_total_tokens:
            arguments = {"kv_tokens": largest, "limit_tokens": self._kv_total_tokens}
            self._emit(Rejected(command.request_id, Failure("KVCacheExceeded", arguments)))
            return
        self._calls[command.request_id] = sequences
        for seq in sequences:
            self._scheduler.add(seq)

    def _sequence(self, command: Generate, row: int) -> Sequence:
        """Builds a sequence, with its guide if it has one."""
        config, room = command.config, self._context_length
        if config.guidance_scale == 1.0:
            seq = self._builder.generating(command, row, self, room)
            seq.takes_drafts = True
            if config.prompt_lookup_num_tokens:
                seq.lookup = PromptLookup()
            return seq
        prompt, given = command.sequences[row].prompt_token_ids, config.negative_prompt
        negative = list(prompt[-1:] if given is None else given)
        room -= max(0, len(negative) - len(prompt))  # the guide may not be longer either
        seq = self._builder.generating(command, row, self, room)
        seq.attach_guide(negative)
        return seq

    def answer(self, seq: Sequence, choice: Choice, logits: Tensor) -> None:
        """Appends a chosen token and emits it, or ends a sequence for which there is none.

        Args:
            seq: the sequence.
            choice: the token, or why there is none.
            logits: `[W]` float32 that it was chosen from.
        """
        event = advance(seq, choice, logits)
        if event.finish is not None:
            self._remove(seq, keep=event.finish.failure is None)
        self._emit(event)

    def fail(self, seq: Sequence, failure: Failure) -> None:
        """Ends a sequence that could not pass through the model."""
        self.answer(seq, Choice(failure=failure), torch.empty(0))

    def cancel(self, request_id: int) -> None:
        """Drops the sequences of a call. An unknown one is ignored."""
        for seq in self._calls.pop(request_id, []):
            self._scheduler.remove(seq)

    def _remove(self, seq: Sequence, *, keep: bool) -> None:
        """Frees what a sequence holds that has ended."""
        self._scheduler.remove(seq, keep=keep)
        members = self._calls[seq.call.request_id]
        members.remove(seq)
        if not members:
            del self._calls[seq.call.request_id]


def advance(seq: Sequence, choice: Choice, logits: Tensor) -> SequenceTokens:
    """Appends the token chosen for a sequence that generates.

    Args:
        seq: the sequence.
        choice: the token, or why there is none, which ends the sequence.
        logits: `[W]` float32 that it was chosen from.

    Returns:
        What the call is told. Its `finish` is set when the sequence has ended.
    """
    call = seq.call
    event = SequenceTokens(call.request_id, seq.row, [])
    token_id = choice.token_id
    if token_id is None or call.given_failure is not None:
        event.finish = seq.finish("error", choice.failure or call.given_failure)
        return event
    try:
        if call.selection is not None:
            position = len(seq.token_ids)
            event.scores = [
                describe(seq, call.selection, position, token_id, logits, choice.scores)
            ]
        reason = seq.append(token_id)
    except Exception as error:
        event.scores, event.finish = [], seq.finish("error", row_failure.internal(error))
        return event
    event.token_ids.append(token_id)
    event.prompt_scores = call.take_given_scores()
    if reason is not None:
        event.finish = seq.finish(reason)
    return event
