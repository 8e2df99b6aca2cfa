"""A worker with an engine and no front: `python -m bench.engine_worker FOLDER PRECISION GRAPHS`.

Answers requests for the time of a decoding step, of the products alone and of the sampler.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, Literal

import torch

from bench import sampler
from bench.command import DTYPES
from bench.local_engine import LocalEngine, greedy
from bench.peers.rounds import serve
from bench.products import Products
from bench.warpers import WARPERS
from bench.workload import Workload
from model_service.engine.sampling import sampler as engine_sampler

STEPS = 30
PROMPT_TOKENS = 128


class EngineWorker:
    """One engine, and the products of its model."""

    def __init__(self, folder: str, precision: str, decode_graphs: Literal["auto", "off"]) -> None:
        """Loads the model, and waits until its steps are compiled."""
        dtype = DTYPES[precision]
        self._engine = LocalEngine(folder, dtype, decode_graphs)
        self._engine.finish_graphs()
        self._products = Products(folder, getattr(torch, dtype))
        self._rows: tuple[list[list[int]], list[torch.Tensor]] | None = None

    def step(self, rows: int, seed: int) -> dict[str, float]:
        """Measures steps in which so many rows decode."""
        workload = Workload(rows, PROMPT_TOKENS, STEPS + rows)
        self._engine.submit(self._engine.prompts(workload, seed), greedy(workload.new_tokens))
        steps = [stats for stats in self._engine.drain() if stats.decode_rows == rows]
        alone = [stats.duration_s for stats in steps if not stats.prefill_tokens]
        return {"step_ms": 1000 * statistics.median(alone)}

    def products(self, rows: int, seed: int) -> dict[str, float]:
        """Measures the products of so many rows."""
        return {"step_ms": 1000 * self._products.step_s(rows)}

    def sampler(self, warper: str, rows: int, seed: int) -> dict[str, float]:
        """Measures the choice of so many tokens, all with one configuration."""
        if self._rows is None:
            self._rows = sampler.collect(self._engine, Workload(rows, PROMPT_TOKENS, 8))
        prompts, steps = self._rows
        config = sampler.sampled(**WARPERS[warper])
        draws = sampler.make_draws(prompts, (config,), steps[0].shape[-1], 1000 * seed)
        times = []
        for logits in steps:
            start = time.perf_counter()
            engine_sampler.choose(logits, draws)
            times.append(time.perf_counter() - start)
        return {"step_ms": 1000 * statistics.median(times)}


def main() -> None:
    """Answers `{"measure": METHOD, ..}` with the figures of that method."""
    with redirect_stdout(sys.stderr):
        worker = EngineWorker(sys.argv[1], sys.argv[2], "off" if sys.argv[3] == "off" else "auto")
    methods: dict[str, Callable[..., dict[str, float]]] = {
        "step": worker.step,
        "products": worker.products,
        "sampler": worker.sampler,
    }

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return methods[request.pop("measure")](**request)

    serve(answer)


if __name__ == "__main__":
    main()
