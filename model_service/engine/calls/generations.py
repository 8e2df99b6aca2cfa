"""Calls of `Generate`: sequences that run to their end on their own."""

from collections.abc import Callable

from torch import Tensor

from model_service.engine.calls.scores import describe
from model_service.engine.calls.sequence_building import build
from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences import row_failure
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Event, Failure, Generate, Rejected, SequenceTokens


class Generations:
    """Starts sequences, appends what is chosen for them, and ends them."""

    def __init__(
        self,
        scheduler: Scheduler,
        revisions: list[RevisionRows],
        *,
        context_length: int,
        kv_total_tokens: int,
        emit: Callable[[Event], None],
    ) -> None:
        """Starts without sequences.

        Args:
            scheduler: what sequences are queued in.
            revisions: sizes of the vocabulary; grows in place.
            context_length: most tokens of a sequence.
            kv_total_tokens: tokens of KV cache in all.
            emit: sends an event.
        """
        self._scheduler = scheduler
        self._revisions = revisions
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
        limit = self._context_length
        seq = build(command, row, self._revisions, kind="generate", limit=limit)
        config = seq.config
        if config.guidance_scale == 1.0:
            return seq
        given = config.negative_prompt
        negative = list(seq.token_ids[-1:] if given is None else given)
        num_new = min(seq.max_length - len(seq.token_ids), limit - len(negative))
        seq.max_length = len(seq.token_ids) + num_new
        seq.attach_guide(negative, len(negative) + num_new)
        return seq

    def answer(self, draw: Draw, choice: Choice, logits: Tensor) -> None:
        """Appends a chosen token and emits it, or ends a sequence for which there is none.

        Args:
            draw: the row.
            choice: the token, or why there is none.
            logits: `[R, V]` float32 of the step.
        """
        seq = draw.sequence
        event = advance(seq, seq.request_id, draw, choice, logits, self._revisions[seq.revision])
        if event.finish is not None:
            self._remove(seq, keep=event.finish.failure is None)
        self._emit(event)

    def cancel(self, request_id: int) -> None:
        """Drops the sequences of a call. An unknown one is ignored."""
        for seq in self._calls.pop(request_id, []):
            self._scheduler.remove(seq)

    def _remove(self, seq: Sequence, *, keep: bool) -> None:
        """Frees what a sequence holds that has ended."""
        self._scheduler.remove(seq, keep=keep)
        members = self._calls[seq.request_id]
        members.remove(seq)
        if not members:
            del self._calls[seq.request_id]


def advance(
    seq: Sequence,
    request_id: int,
    draw: Draw,
    choice: Choice,
    logits: Tensor,
    revision: RevisionRows,
) -> SequenceTokens:
    """Appends the token chosen for a sequence that generates.

    Args:
        seq: the sequence.
        request_id: the call that it works for.
        draw: its row of the step.
        choice: the token, or why there is none, which ends the sequence.
        logits: `[R, V]` float32 of the step.
        revision: the sequence's revision of the vocabulary.

    Returns:
        What the call is told. Its `finish` is set when the sequence has ended.
    """
    event = SequenceTokens(request_id, seq.row, [])
    token_id = choice.token_id
    if token_id is None or seq.given_failure is not None:
        event.finish = seq.finish("error", choice.failure or seq.given_failure)
        return event
    try:
        if seq.selection is not None:
            position, row = len(seq.token_ids), logits[draw.row]
            event.scores = [
                describe(seq, seq.selection, position, token_id, row, choice.scores, revision)
            ]
        reason = seq.append(token_id)
    except Exception as error:
        event.scores, event.finish = [], seq.finish("error", row_failure.internal(error))
        return event
    event.token_ids.append(token_id)
    if seq.given_scores:
        event.prompt_scores, seq.given_scores = seq.given_scores, []
    seq.prompt_selection = None
    if reason is not None:
        event.finish = seq.finish(reason)
    return event
