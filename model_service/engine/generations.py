"""Calls of `Generate`: sequences that run to their end on their own."""

from collections.abc import Callable

from torch import Tensor

from model_service.engine.row_config import of_row
from model_service.engine.sampling import processors
from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.scheduler import Scheduler
from model_service.engine.scores import describe
from model_service.engine.sequence import Sequence
from model_service.engine.vocabulary import RevisionRows
from model_service.generation import FinishReason
from model_service.messages import Event, Failure, Generate, Rejected, SequenceSpec, SequenceTokens


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
        """Has no sequences yet.

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
        sequences = [
            self._sequence(command, row, spec) for row, spec in enumerate(command.sequences)
        ]
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

    def _sequence(self, command: Generate, row: int, spec: SequenceSpec) -> Sequence:
        """Builds a sequence, with its guide if it has one."""
        prompt, config = spec.prompt_token_ids, of_row(command.config, spec)
        negative = []
        if config.guidance_scale != 1.0:
            negative = list(
                prompt[-1:] if config.negative_prompt is None else config.negative_prompt
            )
        num_new = min(config.max_new_tokens, self._context_length - max(len(prompt), len(negative)))
        seq = Sequence(
            request_id=command.request_id,
            row=row,
            token_ids=list(prompt),
            config=config,
            seed=spec.seed,
            vocabulary_size=self._revisions[command.revision].size,
            token_bytes=self._revisions[command.revision].token_bytes,
            revision=command.revision,
            max_length=len(prompt) + num_new,
            selection=command.selection,
            prompt_selection=command.prompt_selection,
            priority=command.priority,
            salt=command.cache_salt,
        )
        if negative:
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
        if choice.token_id is None or seq.given_failure is not None:
            self._fail(seq, choice.failure or seq.given_failure)
            return
        position = len(seq.token_ids)
        event = SequenceTokens(seq.request_id, seq.row, [choice.token_id])
        if seq.selection is not None:
            try:
                event.scores = [
                    describe(
                        seq,
                        seq.selection,
                        position,
                        choice.token_id,
                        logits[draw.row],
                        choice.scores,
                        self._revisions[seq.revision],
                    )
                ]
            except processors.ProcessorError as error:
                self._fail(seq, processors.failure(error))
                return
        reason = seq.append(choice.token_id)
        if seq.given_scores:
            event.prompt_scores, seq.given_scores = seq.given_scores, []
        seq.prompt_selection = None
        if reason is not None:
            self._end(seq, event, reason)
        self._emit(event)

    def cancel(self, request_id: int) -> None:
        """Drops the sequences of a call. An unknown one is ignored."""
        for seq in self._calls.pop(request_id, []):
            self._scheduler.remove(seq)

    def _fail(self, seq: Sequence, failure: Failure | None) -> None:
        event = SequenceTokens(seq.request_id, seq.row, [])
        self._end(seq, event, "error", failure)
        self._emit(event)

    def _end(
        self,
        seq: Sequence,
        event: SequenceTokens,
        reason: FinishReason,
        failure: Failure | None = None,
    ) -> None:
        """Marks an event as the last of its sequence and frees what that holds."""
        event.finish = seq.finish(reason, failure)
        self._scheduler.remove(seq, keep=failure is None)
        members = self._calls[seq.request_id]
        members.remove(seq)
        if not members:
            del self._calls[seq.request_id]
