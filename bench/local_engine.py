"""An engine in this process, without a front: small benchmarks run it step by step."""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, cast

import torch

from bench.workload import Workload
from model_service.engine import process
from model_service.engine.run.runner import CachingRunner
from model_service.protocol import (
    Cancel,
    EngineSettings,
    Generate,
    Message,
    Rejected,
    SequenceSpec,
    SequenceTokens,
    StepStats,
)
from model_service.protocol.channel import RingWriter
from model_service.protocol.generation import PositionScores, Row, ScoreSelection
from model_service.protocol.parameters import GenerationConfig


class _Nowhere:
    """Stands for the front: takes messages and does nothing with them."""

    def send(self, message: Message) -> None:
        pass

    def put(self, row: memoryview) -> Row:
        return bytes(row)


class LocalEngine:
    """Takes prompts, and what became of them.

    Attributes:
        graphs: the compiled steps, or what is being done about them.
        tokens: new tokens by call, then by row.
        scores: what was reported about them, by call and row.
    """

    def __init__(
        self,
        folder: Path | str,
        dtype: str,
        decode_graphs: Literal["auto", "off"] = "off",
        prefill_budget_s: float = 0.1,
        **others: Any,
    ) -> None:
        """Loads a model.

        Args:
            folder: of the checkpoint.
            dtype: torch's name of it.
            decode_graphs: whether steps are compiled; `advance` and `finish_graphs` do it.
            prefill_budget_s: time that prompts may add to a step in which others decode.
            **others: further settings of the engine.
        """
        torch.set_grad_enabled(False)
        settings = EngineSettings(
            socket_path="",
            ring_name="",
            model_folder=str(folder),
            dtype=dtype,
            decode_graphs=decode_graphs,
            prefill_budget_s=prefill_budget_s,
            **others,
        )
        nowhere = _Nowhere()
        self._engine, self.info, self.graphs = process.build(
            settings, cast(process.Connection, nowhere), cast(RingWriter, nowhere)
        )
        self._num_calls = 0
        self.tokens: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.scores: dict[int, dict[int, list[PositionScores]]] = defaultdict(
            lambda: defaultdict(list)
        )

    @property
    def runner(self) -> CachingRunner:
        """What runs the model, for benchmarks of single steps."""
        return self._engine._runner

    def finish_graphs(self) -> None:
        """Waits until steps are compiled, or are known not to be; a few minutes at first."""
        if self.graphs.is_preparing:
            print("Compiling, once for this machine ...", flush=True)
        while self.graphs.is_preparing:
            self.graphs.advance()
            time.sleep(0.1)
        print(f"compiled steps: {self.graphs.status.state} {self.graphs.status.reason}\n")

    def prompts(self, workload: Workload, seed: int) -> list[list[int]]:
        """Returns the prompts of a round; a vocabulary smaller than most has its own ids."""
        size = self.info.vocabulary_size
        return [[token_id % size for token_id in ids] for ids in workload.prompts(seed)]

    def submit(
        self,
        prompts: list[list[int]],
        config: GenerationConfig,
        *,
        salt: str | None = None,
        selection: ScoreSelection | None = None,
    ) -> int:
        """Queues prompts as one call and returns its number.

        Args:
            prompts: ids.
            config: how tokens are chosen. Row `i` draws with seed `i`.
            salt: prompts of equal salts reuse each other's KV cache; None means no reuse.
            selection: what to keep about new tokens in `scores`.
        """
        self._num_calls += 1
        self._engine.handle(
            Generate(
                request_id=self._num_calls,
                sequences=[SequenceSpec(prompt, seed) for seed, prompt in enumerate(prompts)],
                config=config,
                revision=0,
                selection=selection,
                cache_salt=salt,
            )
        )
        return self._num_calls

    def cancel(self, call: int) -> None:
        """Ends a call."""
        self._engine.handle(Cancel(call))

    def step(self) -> StepStats | None:
        """Runs one step. Returns None when there is nothing left to do.

        Raises:
            RuntimeError: the engine refuses a call.
        """
        report = self._engine.step()
        if report is None:
            return None
        for event in report.events:
            if isinstance(event, Rejected):
                raise RuntimeError(f"The engine refuses: {event.failure}")
            if isinstance(event, SequenceTokens):
                self.tokens[event.request_id][event.row] += event.token_ids
                self.scores[event.request_id][event.row] += event.scores
        return report.stats

    def drain(self) -> list[StepStats]:
        """Steps until there is nothing left to do."""
        steps = []
        while (stats := self.step()) is not None:
            steps.append(stats)
        return steps

    def rows(self, call: int) -> list[list[int]]:
        """Returns the new tokens of a call so far, by row."""
        found = self.tokens[call]
        return [found[row] for row in sorted(found)]


def greedy(new_tokens: int, **options: Any) -> GenerationConfig:
    """Returns a greedy configuration that nothing but the length ends."""
    return GenerationConfig(max_new_tokens=new_tokens, eos_token_ids=(), **options)
