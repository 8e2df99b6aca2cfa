"""The loop that turns commands into tokens.

A sequence goes round: schedule, forward, choose, record. One thread runs
everything here and owns all state, so there is no lock to hold and none to
forget; commands are applied between steps. The engine knows no wire and no
text.
"""

import time
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from model_service.engine.model_runner import order
from model_service.engine.sampling import processors
from model_service.engine.sampling.sampler import Choice, Draw, Sampler
from model_service.engine.scheduler import Scheduler
from model_service.engine.scores import Reporter
from model_service.engine.sequence import Run, Sequence
from model_service.engine.session_rows import SessionRows
from model_service.engine.session_table import SessionTable
from model_service.engine.sessions import Sessions
from model_service.engine.vocabulary import Vocabulary
from model_service.generation import FinishReason, ScoreSelection
from model_service.messages import (
    Cancel,
    CloseSession,
    Command,
    DescribeSession,
    Event,
    Failure,
    ForkSession,
    Generate,
    GrowVocabulary,
    Load,
    OpenSession,
    Rejected,
    Report,
    SelectSessionRows,
    SequenceTokens,
    StepSession,
    StepStats,
    TruncateSession,
    VocabularyGrown,
)


class Runner(Protocol):
    """What the engine needs of a model.

    Attributes:
        vocabulary: rows and revisions; grown between steps.
    """

    vocabulary: Vocabulary

    def forward(self, runs: list[Run]) -> Tensor:
        """Advances `num_cached` of every run's sequence and returns `[R, V]` float32."""
        ...


class Engine:
    """Advances every sequence that has work by one step at a time."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        reporter: Reporter,
        *,
        context_length: int,
        kv_total_tokens: int,
        kv_bytes_per_token: int,
        copy_slot: Callable[[int, int, int], None],
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._reporter = reporter
        self._sampler = Sampler(runner.vocabulary.revisions)
        self._context_length = context_length
        self._kv_total_tokens = kv_total_tokens
        self._calls: dict[int, list[Sequence]] = {}
        self._events: list[Event] = []
        self._load = Load()
        table = SessionTable(scheduler, kv_bytes_per_token=kv_bytes_per_token, emit=self._emit)
        rows = SessionRows(table, scheduler, copy_slot=copy_slot)
        self._sessions = Sessions(table, scheduler, reporter, runner.vocabulary.revisions)
        self._handlers: dict[type, Callable[..., None]] = {
            Generate: self._generate,
            Cancel: self._cancel,
            OpenSession: self._sessions.open,
            StepSession: self._sessions.step,
            TruncateSession: rows.truncate,
            ForkSession: rows.fork,
            SelectSessionRows: rows.select,
            DescribeSession: self._sessions.describe,
            CloseSession: self._sessions.close,
            GrowVocabulary: self._grow_vocabulary,
        }

    # --- Steps ---------------------------------------------------------------------------------

    def step(self) -> Report | None:
        """Runs one step. Returns None when there was nothing to do."""
        runs = order(self._scheduler.schedule())
        if not runs:
            return self._report(None)
        start = time.monotonic()
        for run in runs:
            run.sequence.prefill_start = run.sequence.prefill_start or start
            run.sequence.steps += 1
        logits = self._runner.forward(runs)  # [R, V]
        forwarded = time.monotonic()
        draws = self._draws(runs)
        choices = self._sampler.choose(logits, draws)
        self._record_given(runs, logits)
        for draw, choice in zip(draws, choices, strict=True):
            self._record(draw, choice, logits)
        return self._report(self._stats(runs, start, forwarded))

    def _draws(self, runs: list[Run]) -> list[Draw]:
        """Finds the rows of logits from which a next token is due."""
        draws = []
        row = 0
        for run in runs:
            row += len(run.targets)
            seq = run.sequence
            if seq.num_pending == 0 and run.targets:
                wants_scores = seq.selection is not None and seq.selection.scores
                draws.append(Draw(seq, row - 1, wants_scores))
        return draws

    def _record_given(self, runs: list[Run], logits: Tensor) -> None:
        """Describes the distributions of tokens that were given, where asked for."""
        row = 0
        for run in runs:
            seq, selection = run.sequence, run.sequence.prompt_selection
            start = seq.num_cached - run.length
            for target in run.targets:
                position = start + target + 1
                if selection is not None and position < len(seq.token_ids):
                    self._describe_given(seq, position, logits[row], selection)
                row += 1

    def _describe_given(
        self, seq: Sequence, position: int, logits: Tensor, selection: ScoreSelection
    ) -> None:
        revision = self._runner.vocabulary.revisions[seq.revision]
        logits = logits[: revision.size]
        scores = None
        if selection.scores:
            scores = processors.scores(seq, logits, revision.forbidden, position)
        index = position - 1 - seq.first_given
        if selection.positions == "list" and index not in selection.position_list:
            return
        seq.given_scores.append(
            self._reporter.report(selection, position, seq.token_ids[position], logits, scores)
        )

    def _record(self, draw: Draw, choice: Choice, logits: Tensor) -> None:
        if draw.sequence.kind == "session":
            self._sessions.answer(draw, choice, logits)
        else:
            self._extend(draw, choice, logits)

    def _extend(self, draw: Draw, choice: Choice, logits: Tensor) -> None:
        """Appends a chosen token to a `Generate` sequence and emits it."""
        seq = draw.sequence
        if choice.token_id is None:
            self._finish(seq, "error", choice.failure)
            return
        position = len(seq.token_ids)
        reason = seq.append(choice.token_id)
        event = SequenceTokens(seq.request_id, seq.row, [choice.token_id])
        if seq.selection is not None:
            row = logits[draw.row][: seq.vocabulary_size]
            event.scores = [
                self._reporter.report(seq.selection, position, choice.token_id, row, choice.scores)
            ]
        if seq.given_scores:
            event.prompt_scores, seq.given_scores = seq.given_scores, []
        seq.prompt_selection = None
        if reason is not None:
            event.finish = seq.finish(reason)
            self._release(seq)
        self._emit(event)

    def _finish(self, seq: Sequence, reason: FinishReason, failure: Failure | None) -> None:
        finish = seq.finish(reason, failure)
        self._release(seq)
        self._emit(SequenceTokens(seq.request_id, seq.row, [], finish=finish))

    def _release(self, seq: Sequence) -> None:
        self._scheduler.remove(seq)
        members = self._calls[seq.request_id]
        members.remove(seq)
        if not members:
            del self._calls[seq.request_id]

    def _stats(self, runs: list[Run], start: float, forwarded: float) -> StepStats:
        now = time.monotonic()
        decode_rows = sum(run.length == 1 for run in runs)
        prefill_tokens = sum(run.length for run in runs if run.length > 1)
        if not decode_rows:
            self._scheduler.learn(prefill_tokens, forwarded - start)
        return StepStats(
            duration_s=now - start,
            decode_rows=decode_rows,
            prefill_tokens=prefill_tokens,
            forward_s=forwarded - start,
            sample_s=now - forwarded,
        )

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _report(self, stats: StepStats | None) -> Report | None:
        """Collects what is new. Returns None when that is nothing."""
        load = Load(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            kv_used_tokens=self._scheduler.kv_used_tokens,
        )
        if stats is None and not self._events and load == self._load:
            return None
        self._load = load
        events, self._events = self._events, []
        return Report(events, load, stats)

    # --- Commands ------------------------------------------------------------------------------

    def handle(self, command: Command) -> None:
        """Applies a command. Called between steps only."""
        self._handlers[type(command)](command)

    def _generate(self, command: Generate) -> None:
        sequences = [
            Sequence(
                request_id=command.request_id,
                row=row,
                token_ids=list(spec.prompt_token_ids),
                config=command.config,
                seed=spec.seed,
                vocabulary_size=self._runner.vocabulary.revisions[command.revision].size,
                revision=command.revision,
                max_length=min(
                    len(spec.prompt_token_ids) + command.config.max_new_tokens,
                    self._context_length,
                ),
                selection=command.selection,
                prompt_selection=command.prompt_selection,
                priority=command.priority,
            )
            for row, spec in enumerate(command.sequences)
        ]
        largest = max(seq.max_length for seq in sequences)
        if largest > self._kv_total_tokens:
            arguments = {"kv_tokens": largest, "limit_tokens": self._kv_total_tokens}
            self._emit(Rejected(command.request_id, Failure("KVCacheExceeded", arguments)))
            return
        self._calls[command.request_id] = sequences
        for seq in sequences:
            self._scheduler.add(seq)

    def _cancel(self, command: Cancel) -> None:
        self._sessions.cancel(command.request_id)
        for seq in self._calls.pop(command.request_id, []):
            self._scheduler.remove(seq)

    def _grow_vocabulary(self, command: GrowVocabulary) -> None:
        start = time.monotonic()
        vocabulary = self._runner.vocabulary
        try:
            vocabulary.grow(command.revision, command.rows)
        except ValueError as error:  # vectors of another size: the tokenizer service cannot know
            failure = Failure("InvalidField", {"field": "tokens", "description": str(error)})
            self._emit(Rejected(command.request_id, failure))
            return
        self._emit(
            VocabularyGrown(
                request_id=command.request_id,
                revision=vocabulary.revision,
                size=vocabulary.size,
                reserved_rows=vocabulary.num_reserved,
                added_rows_sha256=vocabulary.added_rows_sha256,
                pause_s=time.monotonic() - start,
            )
        )
