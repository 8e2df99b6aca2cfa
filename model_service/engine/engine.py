"""The loop that turns commands into tokens.

A sequence goes round: schedule, forward, choose, record. One thread runs
everything here and owns all state, so no lock is needed and there is none to
forget; commands are applied between steps. The engine knows no wire and no
text.
"""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from model_service.engine.calls import given_tokens, guides
from model_service.engine.calls.beams import Beams
from model_service.engine.calls.continuations import Continuations
from model_service.engine.calls.generate_calls import GenerateCalls
from model_service.engine.calls.scores import PutRow, ship
from model_service.engine.calls.sequence_building import SequenceBuilder
from model_service.engine.calls.session_rows import SessionRows
from model_service.engine.calls.session_steps import SessionSteps
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.calls.speculation import Drafter, Speculation
from model_service.engine.run import isolated_step
from model_service.engine.run.isolated_step import StepResult
from model_service.engine.run.model_runner import order
from model_service.engine.run.runner import CachingRunner
from model_service.engine.run.step_timer import StepTimer
from model_service.engine.run.trial_sequences import TrialSequences
from model_service.engine.sampling import row_failure, sampler
from model_service.engine.sampling.custom_processors import CustomProcessor
from model_service.engine.schedule.places import Places
from model_service.engine.schedule.scheduler import Scheduler, StepWork
from model_service.engine.sequences.run import Due, Run
from model_service.engine.sequences.sequence import Owner
from model_service.engine.vocabulary.growth import Growth
from model_service.protocol import (
    Cancel,
    CloseSession,
    Command,
    ContinueSession,
    DescribeSession,
    Event,
    FlushPrefixCache,
    ForkSession,
    Generate,
    GenerateSession,
    GrowVocabulary,
    Load,
    OpenSession,
    Ping,
    PrefixCacheFlushed,
    RebindSession,
    Rejected,
    Report,
    SelectSessionRows,
    SpellTokens,
    StepSession,
    StepStats,
    TruncateSession,
)

# Commands that begin a call, or are one.
CALLS = (
    Generate,
    OpenSession,
    GenerateSession,
    StepSession,
    ContinueSession,
    TruncateSession,
    ForkSession,
    SelectSessionRows,
    RebindSession,
    DescribeSession,
)


class Engine:
    """Advances every sequence that has work by one step at a time."""

    def __init__(
        self,
        runner: CachingRunner,
        scheduler: Scheduler,
        put: PutRow,
        *,
        context_length: int,
        kv_total_tokens: int,
        kv_bytes_per_token: int,
        places: Places,
        custom: Iterable[CustomProcessor] = (),
        assistant: Drafter | None = None,
        timer: StepTimer | None = None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._places = places
        self._put = put
        self._timer = timer or StepTimer(torch.device("cpu"))
        self._events: list[Event] = []
        self._load: Load | None = None  # that was reported last
        builder = SequenceBuilder(runner.vocabulary.revisions, custom)
        self._speculation = Speculation(takes_drafts=runner.takes_drafts, assistant=assistant)
        self._counted = self._counts()
        generations = GenerateCalls(
            scheduler,
            builder,
            context_length=context_length,
            kv_total_tokens=kv_total_tokens,
            emit=self._emit,
        )
        self._generations = generations
        self._beams = Beams(
            scheduler,
            builder,
            context_length=context_length,
            kv_total_tokens=kv_total_tokens,
            copy=places.copy,
            emit=self._emit,
        )
        self._growth = Growth(runner.vocabulary, self._emit)
        table = SessionTable(
            scheduler, builder, kv_bytes_per_token=kv_bytes_per_token, emit=self._emit
        )
        rows = SessionRows(table, scheduler, places, runner.vocabulary.revisions)
        steps = SessionSteps(table, scheduler)
        continuations = Continuations(table, scheduler)
        self._owners: list[Owner] = [generations, self._beams, steps, continuations]
        self._handlers: dict[type, Callable[..., None]] = {
            Generate: self._generate,
            Cancel: self._cancel,
            OpenSession: steps.open,
            GenerateSession: continuations.begin,
            StepSession: steps.step,
            ContinueSession: continuations.resume,
            TruncateSession: rows.truncate,
            ForkSession: rows.fork,
            SelectSessionRows: rows.select,
            RebindSession: rows.rebind,
            DescribeSession: rows.describe,
            CloseSession: rows.close,
            SpellTokens: self._spell_tokens,
            GrowVocabulary: self._growth.request,
            FlushPrefixCache: self._flush_prefix_cache,
            Ping: self._answer_ping,
        }

    @property
    def is_growing(self) -> bool:
        """Whether a vocabulary revision is on its way, also while nothing runs."""
        return self._growth.is_busy

    # --- Steps ---------------------------------------------------------------------------------

    def step(self) -> Report | None:
        """Runs one step. Returns None when there was nothing to do."""
        self._growth.advance()
        runs = order(self._speculation.extend(self._scheduler.schedule()))
        if not runs:
            return self._report(None)
        start = time.monotonic()
        for run in runs:
            run.sequence.call.begin_step(start)
        self._timer.begin()
        result = isolated_step.forward(self._runner, runs)
        self._timer.end()
        work = self._scheduler.work_of(result.runs)
        if result.logits is not None:
            self._choose(result.runs, result.logits)
        if result.failures:
            self._fail(result)
        return self._report(self._stats(result.runs, work, start))

    def _choose(self, runs: list[Run], logits: Tensor) -> None:
        """Chooses the tokens that are due. Logits: `[R, V]` float32."""
        given_tokens.record(runs, logits)
        due, logits = guides.pair(self._due(runs), logits)
        while due:
            choices = sampler.choose(logits, [entry.draw() for entry in due])
            rows = logits.unbind()
            for entry, choice in zip(due, choices, strict=True):
                owner = entry.sequence.call.owner
                assert owner is not None, "A row at rest took part in a step. This is a bug."
                row = rows[entry.row] if choice.logits is None else choice.logits
                owner.answer(entry.sequence, choice, row)
            due = self._speculation.follow(due, choices)

    def _fail(self, result: StepResult) -> None:
        """Ends what could not pass through the model.

        Where nothing could, a sequence of nobody has to: if it cannot either, the model is
        broken, and so the exception leaves the engine.
        """
        for run, error in result.failures:
            seq = run.sequence if run.sequence.guidance is None else run.sequence.guidance.guided
            owner = seq.call.owner
            if seq.slot is not None and owner is not None:  # not ended in this step already
                owner.fail(seq, row_failure.of_step(error))
        if not result.runs:
            self._try_model()

    def _try_model(self) -> None:
        self._places.flush()  # so that there is a place, unless sessions have them all
        if self._runner.cache.num_free_slots:
            with TrialSequences(self._runner) as trial:
                run = Run(trial.sequence([0]), 1, (0,))
                for _, error in isolated_step.forward(self._runner, [run]).failures:
                    raise error

    def _due(self, runs: list[Run]) -> list[Due]:
        """Finds the rows of logits from which a next token is due."""
        due = []
        row = 0
        for run in runs:
            row += len(run.targets)
            if run.sequence.num_pending == 0 and run.targets:
                due.append(Due(run.sequence, row - 1 - len(run.drafts), run.drafts))
        return due

    def _stats(self, runs: list[Run], work: StepWork, start: float) -> StepStats:
        forward_s = self._timer.elapsed_s()
        duration_s = time.monotonic() - start
        decode_rows = sum(run.length == 1 for run in runs)
        prefill_tokens = sum(run.length for run in runs if run.length > 1)
        self._scheduler.learn(work, forward_s)
        before, self._counted = self._counted, self._counts()
        since = {name: count - before[name] for name, count in self._counted.items()}
        return StepStats(
            duration_s=duration_s,
            decode_rows=decode_rows,
            prefill_tokens=prefill_tokens,
            forward_s=forward_s,
            sample_s=max(0.0, duration_s - forward_s),
            compiled=self._runner.compiled,
            **since,
        )

    def _counts(self) -> dict[str, int]:
        """Returns what has been counted since the start, by field of `StepStats`."""
        return {
            "prefix_hits": self._places.num_hits,
            "prefix_hit_tokens": self._places.num_hit_tokens,
            "preempted": self._scheduler.num_preempted,
            "evicted": self._scheduler.num_evicted,
            "drafted": self._speculation.num_drafted,
            "accepted": self._speculation.num_accepted,
            "assistant_drafted": self._speculation.num_assistant_drafted,
            "assistant_accepted": self._speculation.num_assistant_accepted,
        }

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _report(self, stats: StepStats | None) -> Report | None:
        """Collects what is new. Returns None when that is nothing."""
        load = Load(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            kv_used_tokens=self._places.used_tokens,
            kv_donor_tokens=self._places.donor_tokens,
        )
        if stats is None and not self._events and load == self._load:
            return None
        self._load = load
        events, self._events = self._events, []
        for event in events:
            ship(event, self._put)
        return Report(events, load, stats)

    # --- Commands ------------------------------------------------------------------------------

    def handle(self, command: Command) -> None:
        """Applies a command. Called between steps only.

        One that fails is rejected if it belongs to a call; rows of other calls are not affected.
        """
        try:
            self._handlers[type(command)](command)
        except Exception as error:
            if not isinstance(command, CALLS):
                raise
            self._emit(Rejected(command.request_id, row_failure.internal(error)))

    def _generate(self, command: Generate) -> None:
        owner = self._generations if command.config.num_beams == 1 else self._beams
        owner.start(command)

    def _cancel(self, command: Cancel) -> None:
        for owner in self._owners:
            owner.cancel(command.request_id)

    def _flush_prefix_cache(self, command: FlushPrefixCache) -> None:
        self._emit(PrefixCacheFlushed(command.request_id, self._places.flush()))

    def _answer_ping(self, command: Ping) -> None:
        self._load = None  # so that the next report is sent, whatever it says

    def _spell_tokens(self, command: SpellTokens) -> None:
        self._runner.vocabulary.spell(command.token_bytes)
