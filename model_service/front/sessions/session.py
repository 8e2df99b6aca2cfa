"""One session as its callers know it: name, rows, expiry, and what it answered last."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec

from model_service.front.checks.plan import Plan
from model_service.front.checks.selection import FULL_LOGITS
from model_service.protocol import GenerateSession, OpenSession, SessionAnswer
from model_service.protocol.generation import ScoreSelection
from rpc import identity
from vocabulary import Reference


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """What a step was answered.

    Attributes:
        answer: outcomes, by row.
        seeds: seeds of the rows' draws, which later selections of rows do not change here.
        vocabulary: the vocabulary that the session was on.
    """

    answer: SessionAnswer
    seeds: list[int]
    vocabulary: Reference


@dataclass(slots=True)
class Session:
    """One session.

    Attributes:
        plan: the call that opens it: its name, its rows as they were opened, its configuration
            and its vocabulary.
        selection: what the newest call asked for, and the next one unless it says.
        ttl_s: idle time after which it is closed.
        positions: tokens of each row, after the newest call that was answered.
        kv_bytes: bytes of KV cache reserved.
        serial: grows from session to session; orders listings.
        opened_at: monotonic clock, in seconds.
        created_at: wall clock, in seconds since 1970.
        used_at: end of the newest call, monotonic clock.
        busy: whether a call is using it.
        generating: whether that call generates, which closing the session ends.
        closed: whether it is no more. The call that was using it may go on for a moment.
        last_step: the newest step that was named, and its answer.
        owner: the caller that opened it, as far as the transport knows; others cannot find it.
    """

    plan: Plan[OpenSession | GenerateSession]
    selection: ScoreSelection
    ttl_s: float
    positions: list[int] = field(default_factory=list)
    kv_bytes: int = 0
    serial: int = 0
    opened_at: float = field(default_factory=time.monotonic)
    created_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    busy: bool = False
    generating: bool = False
    closed: bool = False
    last_step: tuple[str, StepAnswer] | None = None
    owner: str = field(default_factory=identity.caller)

    @classmethod
    def kept(cls, plan: Plan[GenerateSession], ttl_s: float) -> "Session":
        """Returns the session that holds the sequences of a generation, one row each."""
        resolved = replace(plan.resolved, num_return_sequences=1)
        return cls(replace(plan, resolved=resolved), FULL_LOGITS, ttl_s)

    @property
    def session_id(self) -> str:
        """Its name, unguessable."""
        return self.plan.command.session_id

    @property
    def max_length(self) -> int:
        """Most tokens of a row."""
        return self.plan.command.max_length

    @property
    def vocabulary(self) -> Reference:
        """The vocabulary that it is on."""
        return self.plan.vocabulary

    @property
    def seeds(self) -> list[int]:
        """Seeds of the rows' draws."""
        return [spec.seed for spec in self.plan.sequences]

    @property
    def expires_at(self) -> float:
        """When it expires if it is not used, in seconds since 1970."""
        return time.time() + self.used_at + self.ttl_s - time.monotonic()

    @property
    def idle_left_s(self) -> float:
        """Seconds until it expires if it is not used; all of them while a call uses it."""
        return self.ttl_s if self.busy else self.used_at + self.ttl_s - time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether it has been idle for too long. Never while a call uses it."""
        return self.idle_left_s < 0

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that its rows may take."""
        return self.num_rows * self.max_length

    @property
    def num_rows(self) -> int:
        """Number of its rows."""
        return len(self.plan.sequences)

    def select(self, indices: list[int]) -> Plan[OpenSession | GenerateSession]:
        """Returns the plan that has these rows in place of its own."""
        return replace(self.plan, sequences=[self.plan.sequences[i] for i in indices])

    def fork(self, indices: list[int], session_id: str) -> "Session":
        """Returns a session of its own, of this name, that has copies of these rows."""
        command = msgspec.structs.replace(self.plan.command, session_id=session_id)
        plan = replace(self.select(indices), command=command)
        return Session(plan, self.selection, self.ttl_s)

    def answer_of(self, step_id: str) -> StepAnswer | None:
        """Returns the answer of the newest named step if this is its name."""
        if step_id and self.last_step is not None and self.last_step[0] == step_id:
            return self.last_step[1]
        return None

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Marks it as generating; the engine has been told to begin."""
        self.generating = True
        try:
            yield
        finally:
            self.generating = False

    def cut_prompts(self) -> None:
        """Notes that tokens of prompts are gone where rows are shorter now."""
        sequences = [
            msgspec.structs.replace(spec, num_prompt_tokens=min(spec.prompt_length, position))
            for spec, position in zip(self.plan.sequences, self.positions, strict=True)
        ]
        self.plan = replace(self.plan, sequences=sequences)

    def apply(self, answer: SessionAnswer) -> None:
        """Takes over the state that the engine answered with."""
        self.positions = [row.position for row in answer.rows]
        self.kv_bytes = answer.kv_bytes
