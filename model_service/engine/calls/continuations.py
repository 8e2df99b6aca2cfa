"""Sessions whose rows generate: the engine chooses their tokens until each has ended.

To a session this is a call like a step: one at a time, and undone as a whole
when it is cancelled. Its rows keep their slots and rest afterwards with the new
tokens, so that steps go on from there, or the next continuation. A session may
begin with one: that is how a `Generate` leaves a session behind.
"""

import time
from dataclasses import dataclass, field

import msgspec
from torch import Tensor

from model_service.engine.calls.generations import advance
from model_service.engine.calls.row_config import of_row
from model_service.engine.calls.session import Mark, Session, continuation_refusal, put_back
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.sampling.sampler import Choice, Draw
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import ContinueSession, GenerateSession
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig


@dataclass(slots=True, eq=False)
class Continuation:
    """A session's rows on their way to their ends.

    Attributes:
        request_id: names the call.
        config: how the session chooses tokens otherwise.
        session_id: the session that begins with this; empty when it was there before.
        marks: where the rows were before; empty when the session begins with this.
        num_cached: tokens of each row whose KV cache is used.
        rewound: rows whose last token passes again although it is in the KV cache.
        running: rows that have not ended.
        failed: whether a row has failed.
    """

    request_id: int
    config: GenerationConfig
    session_id: str = ""
    marks: list[Mark] = field(default_factory=list)
    num_cached: list[int] = field(default_factory=list)
    rewound: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    failed: bool = False


class Continuations:
    """Runs rows of sessions to their ends. Part of the engine, on its thread."""

    def __init__(
        self, table: SessionTable, scheduler: Scheduler, revisions: list[RevisionRows]
    ) -> None:
        """Continues sessions of a table.

        Args:
            table: the sessions.
            scheduler: what rows are admitted by.
            revisions: sizes of the vocabulary; grows in place.
        """
        self._table = table
        self._scheduler = scheduler
        self._revisions = revisions

    def begin(self, command: GenerateSession) -> None:
        """Opens a session and runs its rows, or refuses rows that would never fit."""
        session = self._table.open(command, self._revisions)
        if session is None:
            return
        call = Continuation(command.request_id, command.config, command.session_id)
        configs = [of_row(command.config, spec) for spec in command.sequences]
        self._start(session, call, configs, command.selection)

    def resume(self, command: ContinueSession) -> None:
        """Runs the rows of a session from where they are. Refuses as a whole or not at all."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := continuation_refusal(session):
            self._table.reject(command.request_id, refusal)
            return
        call = Continuation(command.request_id, session.rows[0].config, marks=session.marks())
        for seq in session.rows:
            num_tokens = len(seq.token_ids)
            if seq.num_passed == num_tokens:  # no distribution is kept: the last token passes again
                if seq.num_cached == num_tokens:
                    call.rewound.add(seq.row)
                seq.truncate(num_tokens, num_tokens - 1)
            seq.prompt_selection = None
        configs = [
            msgspec.structs.replace(command.config, max_new_tokens=most)
            for most in command.max_new_tokens
        ]
        self._start(session, call, configs, command.selection)

    def _start(
        self,
        session: Session,
        call: Continuation,
        configs: list[GenerationConfig],
        selection: ScoreSelection | None,
    ) -> None:
        session.call = call
        call.num_cached = [seq.num_cached for seq in session.rows]
        call.running = set(range(len(session.rows)))
        for seq, config in zip(session.rows, configs, strict=True):
            seq.configure(config, "continuation")
            seq.request_id = call.request_id
            seq.num_reused = 0
            seq.selection = selection
            seq.given_scores, seq.given_failure = [], None
            seq.call_start = len(seq.token_ids)
            seq.steps = 0
            seq.arrival, seq.prefill_start, seq.first_token = time.monotonic(), 0.0, 0.0
            self._scheduler.resume(seq)

    def answer(self, draw: Draw, choice: Choice, logits: Tensor) -> None:
        """Appends a chosen token and emits it; a row that has ended rests.

        Args:
            draw: the row.
            choice: the token, or why there is none.
            logits: `[R, V]` float32 of the step.
        """
        seq = draw.sequence
        session = self._table.of_row(seq)
        call = session.call
        assert isinstance(call, Continuation)
        revision = self._revisions[seq.revision]
        event = advance(seq, call.request_id, draw, choice, logits, revision)
        self._table.emit(event)
        if event.finish is None:
            return
        cached = max(call.num_cached[seq.row], event.finish.cached_prompt_tokens)
        event.finish = msgspec.structs.replace(event.finish, cached_prompt_tokens=cached)
        if event.finish.failure is not None:
            call.failed = True
            seq.salt = None  # no other sequence shall start from here
        call.running.remove(seq.row)
        self._scheduler.rest(seq)
        if not call.running:
            self._end(session, call)

    def cancel(self, request_id: int) -> None:
        """Undoes a continuation: its rows are as before it, and a session it began is gone."""
        session = self._table.of_call(request_id)
        if session is None or not isinstance(session.call, Continuation):
            return
        call = session.call
        if call.session_id:
            self._table.remove(call.session_id)
            return
        for row in call.running:
            self._scheduler.rest(session.rows[row])
        for seq, mark in zip(session.rows, call.marks, strict=True):
            put_back(seq, mark)
            # Where the last token has yet to pass again, it had passed all the same.
            if seq.row in call.rewound and seq.slot is not None:
                seq.num_cached = mark.num_passed
            else:
                seq.num_lost = mark.num_passed
        self._release(session, call)

    def _end(self, session: Session, call: Continuation) -> None:
        if call.session_id and call.failed:
            self._table.remove(call.session_id)
        else:
            session.generated_from = call.marks
            self._release(session, call)

    def _release(self, session: Session, call: Continuation) -> None:
        """Lets a session be used again."""
        session.call = None
        for seq in session.rows:
            seq.configure(call.config, "session")
