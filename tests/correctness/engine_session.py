"""A session of an engine in this process, by its calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from transformers import PreTrainedModel

from model_service.protocol import (
    Cancel,
    CloseSession,
    Command,
    ContinueSession,
    DescribeSession,
    Event,
    ForkSession,
    GenerateSession,
    OpenSession,
    SelectSessionRows,
    SequenceSpec,
    SessionAnswer,
    StepRow,
    StepSession,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from tests.engine_harness import InprocEngine, tokens_of

FULL = ScoreSelection(logits=True, amount="full")
NOTHING = ScoreSelection()

_names = (f"session {index}" for index in count())
_request_ids = count(10**6)  # beyond those of the engine's own calls


@dataclass
class EngineSession:
    """Calls that run to their end, unless they are given up."""

    engine: InprocEngine
    name: str = field(default_factory=lambda: next(_names))

    def open(
        self,
        prompts: Sequence[list[int]],
        config: GenerationConfig | None = None,
        seeds: Sequence[int] = (),
        max_length: int = 64,
        selection: ScoreSelection = FULL,
    ) -> SessionAnswer:
        """Opens it."""
        specs = _specs(prompts, seeds)
        config = config or self.engine.config()
        return self._answer(OpenSession, specs, config, 0, max_length, selection)

    def step(
        self,
        rows: Sequence[list[int]],
        selection: ScoreSelection = FULL,
        *,
        sample: bool = False,
        append: bool = False,
        look_ahead: bool = False,
    ) -> SessionAnswer:
        """Appends tokens."""
        steps = [StepRow(ids, None) for ids in rows]
        return self._answer(StepSession, steps, selection, sample, append, look_ahead)

    def generate(self, config: GenerationConfig, num_rows: int) -> list[list[int]]:
        """Goes on by itself; returns the new tokens of each row."""
        most = [config.max_new_tokens] * num_rows
        request_id, events = self._do(ContinueSession, config, most)
        return tokens_of(events, request_id, num_rows)

    def keep(
        self,
        prompts: Sequence[list[int]],
        config: GenerationConfig,
        seeds: Sequence[int] = (),
        max_length: int = 64,
    ) -> list[list[int]]:
        """Opens it by a generation; returns the new tokens of each row."""
        specs = _specs(prompts, seeds)
        request_id, events = self._do(GenerateSession, specs, config, 0, max_length)
        return tokens_of(events, request_id, len(prompts))

    def give_up(self, kind: type, *arguments: Any, after_steps: int) -> bool:
        """Cancels a call after some steps of the engine. Returns whether it was too late."""
        request_id = next(_request_ids)
        self.engine.handle(kind(self.name, *arguments, request_id=request_id))
        answered = [self.engine.step() or [] for _ in range(after_steps)]
        late = any(isinstance(e, SessionAnswer) for events in answered for e in events)
        self.engine.handle(Cancel(request_id))
        self.engine.drain()
        return late

    def truncate(self, lengths: list[int]) -> None:
        """Forgets tokens."""
        self._answer(TruncateSession, lengths)

    def fork(self, rows: list[int]) -> "EngineSession":
        """Copies rows to another."""
        fork = EngineSession(self.engine)
        self._do(ForkSession, [fork.name], rows)
        return fork

    def select(self, rows: list[int]) -> None:
        """Replaces the rows."""
        self._answer(SelectSessionRows, rows)

    def rows(self) -> list[list[int]]:
        """Returns the tokens of each row."""
        return self._do(DescribeSession)[1][-1].rows

    def close(self) -> None:
        """Frees it."""
        self._do(CloseSession)

    def _answer(self, kind: type, *arguments: Any) -> SessionAnswer:
        answer = self._do(kind, *arguments)[1][-1]
        assert isinstance(answer, SessionAnswer), answer
        return answer

    def _do(self, kind: type, *arguments: Any) -> tuple[int, list[Event]]:
        request_id = next(_request_ids)
        command: Command = kind(self.name, *arguments, request_id=request_id)
        self.engine.handle(command)
        events = [e for e in self.engine.drain() if e.request_id == request_id]
        return request_id, events


def _specs(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[SequenceSpec]:
    seeds = seeds or [0] * len(prompts)
    return [SequenceSpec(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]


@torch.inference_mode()
def recomputed(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Returns the logits after all of the tokens, `[V]` float32, from one forward pass."""
    return model(torch.tensor([ids])).logits[0, -1]
