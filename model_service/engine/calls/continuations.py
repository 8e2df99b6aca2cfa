"""Sessions whose rows generate: the engine chooses their tokens until each has ended.

To a session this is a call like a step: one at a time, and undone as a whole
when it is cancelled. Its rows keep their slots and rest afterwards with the new
tokens, so that steps go on from there, or the next continuation. A session may
begin with one: that is how a `Generate` leaves a session behind.
"""

from dataclasses import dataclass, field

import msgspec
import torch
from torch import Tensor

from model_service.engine.calls.generate_calls import advance
from model_service.engine.calls.sequence_building import config_of_row
from model_service.engine.calls.session import Session, continuation_refusal
from model_service.engine.calls.session_table import SessionTable
from model_service.engine.sampling.sampler import Choice
from model_service.engine.schedule.scheduler import Scheduler
from model_service.engine.sequences.sequence import Mark, RowCall, Sequence
from model_service.protocol import ContinueSession, Failure, GenerateSession
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

    def __init__(self, table: SessionTable, scheduler: Scheduler) -> None:
        """Continues sessions of a table.

        Args:
            table: the sessions.
            scheduler: what rows are admitted by.
        """
        self._table = table
        self._scheduler = scheduler

    def begin(self, command: GenerateSession) -> None:
        """Opens a session and runs its rows, or refuses rows that would never fit."""
        session = self._table.open(command)
        if session is None:
            return
        call = Continuation(command.request_id, command.config, command.session_id)
        configs = [config_of_row(command.config, spec) for spec in command.sequences]
        self._start(session, call, configs, command.selection, command.prompt_selection)

    def resume(self, command: ContinueSession) -> None:
        """Runs the rows of a session from where they are. Refuses as a whole or not at all."""
        session = self._table.take(command.request_id, command.session_id)
        if session is None:
            return
        if refusal := continuation_refusal(session):
            self._table.reject(command.request_id, refusal)
            return
        call = Continuation(
            command.request_id, session.rows[0].choosing.config, marks=session.marks()
        )
        for seq in session.rows:
            num_tokens = len(seq.token_ids)
            if seq.num_passed == num_tokens:  # no distribution is kept: the last token passes again
                if seq.num_cached == num_tokens:
                    call.rewound.add(seq.row)
                seq.pass_again()
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
        prompt_selection: ScoreSelection | None = None,
    ) -> None:
        session.call = call
        call.num_cached = [seq.num_cached for seq in session.rows]
        call.running = set(range(len(session.rows)))
        for seq, config in zip(session.rows, configs, strict=True):
            limit = len(seq.token_ids) + config.max_new_tokens
            seq.configure(config, min(limit, seq.max_length))
            seq.call = RowCall(call.request_id, self, selection, prompt_selection, limit=limit)
            self._scheduler.resume(seq)

    def answer(self, seq: Sequence, choice: Choice, logits: Tensor) -> None:
        """Appends a chosen token and emits it; a row that has ended rests.

        Args:
            seq: the row.
            choice: the token, or why there is none.
            logits: `[W]` float32 that it was chosen from.
        """
        session = self._table.of_row(seq)
        call = session.call
        assert isinstance(call, Continuation)
        event = advance(seq, choice, logits)
        self._table.emit(event)
        if event.finish is None:
            return
        cached = max(call.num_cached[seq.row], event.finish.cached_prompt_tokens)
        event.finish = msgspec.structs.replace(event.finish, cached_prompt_tokens=cached)
        if event.finish.failure is not None:
            call.failed = True
            seq.withdraw()
        call.running.remove(seq.row)
        self._scheduler.rest(seq)
        if not call.running:
            self._end(session, call)

    def fail(self, seq: Sequence, failure: Failure) -> None:
        """Ends a sequence that could not pass through the model."""
        self.answer(seq, Choice(failure=failure), torch.empty(0))

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
            still_written = seq.row in call.rewound and seq.slot is not None
            seq.put_back(mark)
            # Where the last token has yet to pass again, it had passed all the same.
            seq.have_passed(mark.num_passed, still_written=still_written)
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
            seq.configure(call.config, seq.max_length)
