"""An engine in the test's own process: the real model, scheduler and sampler, no socket."""

from pathlib import Path

import numpy as np

from model_service.engine import process
from model_service.engine.calls.scores import row_to_array
from model_service.engine.engine import Engine
from model_service.protocol import (
    Command,
    EngineInfo,
    EngineSettings,
    Event,
    Generate,
    Message,
    SequenceSpec,
    SequenceTokens,
)
from model_service.protocol.channel import RingReader, RingWriter
from model_service.protocol.generation import PositionScores, Row, ScoreSelection
from model_service.protocol.parameters import GenerationConfig

__all__ = ["InprocEngine", "RingReader", "RingWriter"]


class _NoConnection:
    def send(self, message: Message) -> None:
        pass


class _InlineRing:
    def put(self, row: memoryview) -> Row:
        return bytes(row)


class InprocEngine:
    """Drives an `Engine` step by step and collects what it says."""

    def __init__(self, folder: Path, **settings: object) -> None:
        built = process.build(
            EngineSettings(
                socket_path="", ring_name="", model_folder=str(folder), **{"threads": 1} | settings
            ),
            _NoConnection(),
            _InlineRing(),
        )
        self.engine: Engine = built[0]
        self.info: EngineInfo = built[1]
        self._next_id = 0

    def handle(self, command: Command) -> None:
        self.engine.handle(command)

    def step(self) -> list[Event] | None:
        report = self.engine.step()
        return None if report is None else report.events

    def drain(self) -> list[Event]:
        """Steps until there is nothing to do."""
        events: list[Event] = []
        while (step := self.step()) is not None or self.engine.is_growing:
            events += step or []
        return events

    def submit(
        self,
        prompts: list[list[int]],
        seeds: list[int] | None = None,
        selection: ScoreSelection | None = None,
        prompt_selection: ScoreSelection | None = None,
        cache_salt: str | None = None,
        sequences_per_prompt: int = 1,
        revision: int = 0,
        **config: object,
    ) -> int:
        """Queues prompts as one call and returns its id."""
        self._next_id += 1
        seeds = seeds or [0] * len(prompts)
        self.handle(
            Generate(
                request_id=self._next_id,
                sequences=[SequenceSpec(p, s) for p, s in zip(prompts, seeds, strict=True)],
                config=self.config(**config),
                revision=revision,
                selection=selection,
                prompt_selection=prompt_selection,
                cache_salt=cache_salt,
                sequences_per_prompt=sequences_per_prompt,
            )
        )
        return self._next_id

    def config(self, **values: object) -> GenerationConfig:
        defaults = {"max_new_tokens": 8, "eos_token_ids": ()}
        return GenerationConfig(**{**defaults, **values})

    def generate(self, prompts: list[list[int]], **arguments: object) -> list[list[int]]:
        """Runs prompts together and returns their new tokens."""
        request_id = self.submit(prompts, **arguments)
        return tokens_of(self.drain(), request_id, len(prompts))


def tokens_of(events: list[Event], request_id: int, rows: int) -> list[list[int]]:
    """Collects the tokens of a call by row."""
    tokens: list[list[int]] = [[] for _ in range(rows)]
    for event in events:
        if isinstance(event, SequenceTokens) and event.request_id == request_id:
            tokens[event.row] += event.token_ids
    return tokens


def scores_of(events: list[Event], request_id: int, row: int = 0) -> list[PositionScores]:
    """Collects the reported positions of a row."""
    return [
        position
        for event in events
        if isinstance(event, SequenceTokens) and event.request_id == request_id and event.row == row
        for position in event.scores
    ]


def array(row: Row | None, dtype: str = "float32") -> np.ndarray:
    """Reads a reported row, `[V]` float32."""
    assert isinstance(row, bytes)
    return row_to_array(row, dtype)
