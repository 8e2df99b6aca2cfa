"""A model that can be computed in the head: 4 is followed by 5."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_service.engine.calls.session import Session
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.engine import Engine
from model_service.engine.schedule.places import Places
from model_service.engine.schedule.prefill import PrefillClock
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.run import Run
from model_service.engine.sequences.sequence import Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import (
    Command,
    ContinueSession,
    DescribeSession,
    Event,
    Generate,
    GenerateSession,
    OpenSession,
    SequenceSpec,
    SequenceTokens,
    StepRow,
    StepSession,
)
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig

VOCABULARY_SIZE = 32
BEST = 5.0

# Two letters per id: aa, ab, ac and so on.
SPELLINGS = [bytes([97 + token_id // 26, 97 + token_id % 26]) for token_id in range(32)]


@dataclass
class FixedVocabulary:
    revisions: list[RevisionRows] = field(
        default_factory=lambda: [RevisionRows(VOCABULARY_SIZE, (), dict(enumerate(SPELLINGS)))]
    )


class CountingRunner:
    """Prefers the successor of the last token. Checks what every runner may rely on."""

    def __init__(self, num_slots: int = 8) -> None:
        self.vocabulary = FixedVocabulary()
        self.compiled = False
        self.takes_drafts = True
        self.steps: list[list[tuple[int, int]]] = []
        self.free_slots = set(range(num_slots))
        self.written: dict[int, list[int]] = {}
        self.salts: dict[int, list[str | None]] = {}
        self.poisoned: set[int] = set()
        self.poisoned_tokens: set[int] = set()
        self.failures: dict[int, Exception] = {}  # by request; 0 is the engine's own
        self.failing_tokens: set[int] = set()
        self.most_runs = num_slots  # that memory is sufficient for

    @property
    def cache(self) -> "CountingRunner":
        return self

    @property
    def num_free_slots(self) -> int:
        return len(self.free_slots)

    def allocate(self) -> int:
        slot = min(self.free_slots)
        self.free_slots.remove(slot)
        assert not self.written.get(slot)
        return slot

    def free(self, slot: int, length: int) -> None:
        assert len(self.written.get(slot, [])) == length
        self.written[slot] = []
        self.salts[slot] = []
        self.free_slots.add(slot)

    def copy(self, source: int, target: int, length: int) -> None:
        assert source not in self.free_slots
        assert target not in self.free_slots
        assert len(self.written.get(source, [])) >= length
        for held in (self.written, self.salts):
            held.setdefault(target, [])[:length] = held.get(source, [])[:length]

    def forward(self, runs: list[Run]) -> Tensor:
        self.steps.append([(run.sequence.call.request_id, run.num_tokens) for run in runs])
        rows = []
        for run in runs:
            seq = run.sequence
            assert seq.slot is not None
            written = self.written.setdefault(seq.slot, [])
            salts = self.salts.setdefault(seq.slot, [])
            assert written[: seq.num_cached] == seq.token_ids[: seq.num_cached]
            if seq.salt is not None:
                assert set(salts[: seq.num_cached]) <= {seq.salt}, "it sees another's"
            ids = [*seq.token_ids[: seq.num_cached + run.length], *run.drafts]
            assert not run.drafts or len(ids) <= seq.max_length, "it has no room for drafts"
            for position in range(seq.num_cached, len(ids)):
                token_id = ids[position]
                written[position : position + 1] = [token_id]
                salts[position : position + 1] = [seq.salt]
                if position - seq.num_cached in run.targets:
                    rows.append(self._logits(seq, token_id))
        for run in runs:
            if failure := self.failures.get(run.sequence.call.request_id):
                raise failure
        last_tokens = {run.sequence.token_ids[-1] for run in runs}
        if len(runs) > self.most_runs or last_tokens & self.failing_tokens:
            raise torch.OutOfMemoryError("not for so many")
        for run in runs:
            run.sequence.advance(run.length, len(run.drafts))
        return torch.stack(rows) if rows else torch.empty(0, VOCABULARY_SIZE)

    def _logits(self, seq: Sequence, token_id: int) -> Tensor:
        logits = torch.zeros(VOCABULARY_SIZE)
        logits[(token_id + 1) % VOCABULARY_SIZE] = BEST
        if seq.call.request_id in self.poisoned or token_id in self.poisoned_tokens:
            logits[3] = torch.nan
        return logits


class CountingEngine:
    """An engine over the counting model, with a short spelling for tests."""

    def __init__(
        self,
        max_running: int = 4,
        kv_tokens: int = 1000,
        chunk_tokens: int = 1000,
        context: int = 200,
        num_slots: int | None = None,
    ) -> None:
        num_slots = num_slots or max_running + 8
        self.runner = CountingRunner(num_slots=num_slots)
        clock = PrefillClock(budget_s=1.0, tokens_per_s=chunk_tokens)
        clock.learn = lambda *_: None  # the fake takes no time
        self.places = Places(
            num_slots=num_slots,
            total_tokens=kv_tokens,
            allocate=self.runner.allocate,
            free=self.runner.free,
            copy=self.runner.copy,
        )
        self.scheduler = Scheduler(
            max_running=max_running,
            max_step_tokens=chunk_tokens,
            clock=clock,
            places=self.places,
        )
        self.engine = Engine(
            self.runner,
            self.scheduler,
            bytes,
            context_length=context,
            kv_total_tokens=kv_tokens,
            kv_bytes_per_token=2,
            places=self.places,
        )

    def generate(
        self, request_id: int, *prompts: list[int], new: int = 3, **arguments: object
    ) -> None:
        config = {"max_new_tokens": new, **arguments.pop("config", {})}
        seeds = arguments.pop("seeds", range(len(prompts)))
        arguments.setdefault("cache_salt", "")
        self.engine.handle(
            Generate(
                [SequenceSpec(*row) for row in zip(prompts, seeds, strict=True)],
                GenerationConfig(**config),
                revision=0,
                **arguments,
                request_id=request_id,
            )
        )

    def open(
        self,
        request_id: int,
        *prompts: list[int],
        session_id: str = "s",
        max_length: int = 20,
        salt: str | None = "",
        config: dict[str, object] | None = None,
        **selection,
    ) -> None:
        self.engine.handle(
            OpenSession(
                session_id,
                [SequenceSpec(prompt, seed=0) for prompt in prompts],
                GenerationConfig(max_new_tokens=1, **(config or {})),
                revision=0,
                max_length=max_length,
                selection=ScoreSelection(**(selection or {"logits": True, "amount": "full"})),
                cache_salt=salt,
                request_id=request_id,
            )
        )

    def step_session(
        self,
        request_id: int,
        *rows: list[int],
        session_id="s",
        expected=None,
        sample=False,
        append=False,
        look_ahead=False,
        **sel,
    ) -> None:
        expected = expected or [None] * len(rows)
        self.engine.handle(
            StepSession(
                session_id,
                [StepRow(ids, where) for ids, where in zip(rows, expected, strict=True)],
                ScoreSelection(**(sel or {"logits": True, "amount": "full"})),
                sample=sample,
                append=append,
                look_ahead=look_ahead,
                request_id=request_id,
            )
        )

    def generate_session(
        self,
        request_id: int,
        *prompts: list[int],
        session_id: str = "s",
        max_length: int = 20,
        new: int = 3,
        config: dict | None = None,
        **arguments: object,
    ) -> None:
        self.engine.handle(
            GenerateSession(
                session_id,
                [SequenceSpec(prompt, seed=0) for prompt in prompts],
                GenerationConfig(**{"max_new_tokens": new, **(config or {})}),
                revision=0,
                max_length=max_length,
                **arguments,
                request_id=request_id,
            )
        )

    def continue_session(
        self,
        request_id: int,
        session_id: str = "s",
        new: int = 3,
        config: dict | None = None,
        selection: ScoreSelection | None = None,
    ) -> None:
        resolved = GenerationConfig(**{"max_new_tokens": new, **(config or {})})
        session = self.sessions.find(session_id)
        most = [resolved.max_new_tokens] * (len(session.rows) if session else 1)
        self.engine.handle(
            ContinueSession(session_id, resolved, most, selection, request_id=request_id)
        )

    @property
    def sessions(self) -> SessionTable:
        return self.engine._handlers[StepSession].__self__._table

    def session(self, session_id: str = "s") -> Session:
        """What the engine has of a session."""
        session = self.sessions.find(session_id)
        assert session is not None
        return session

    def do(self, command: Command) -> list[Event]:
        """Handles a command and runs until there is nothing to do."""
        self.engine.handle(command)
        return self.run()

    def rows(self, session_id: str = "s") -> list[list[int]]:
        """The tokens of a session, after what else there is to do."""
        *_, description = self.do(DescribeSession(session_id, request_id=0))
        return description.rows

    def step(self) -> list[Event]:
        report = self.engine.step()
        return report.events if report else []

    def run(self) -> list[Event]:
        events: list[Event] = []
        while (report := self.engine.step()) is not None:
            events += report.events
        return events


def tokens(events: list[Event], request_id: int, row: int = 0) -> list[int]:
    return [
        token_id
        for event in events
        if isinstance(event, SequenceTokens) and (event.request_id, event.row) == (request_id, row)
        for token_id in event.token_ids
    ]


def finish(events: list[Event], request_id: int, row: int = 0):
    finishes = [
        event.finish
        for event in events
        if isinstance(event, SequenceTokens)
        and (event.request_id, event.row) == (request_id, row)
        and event.finish is not None
    ]
    assert len(finishes) == 1, "every sequence ends exactly once"
    return finishes[0]
