"""`python -m bench.step_split FOLDER DTYPE`: where the time of a decoding step goes.

The engine runs in this process, without the front. Steps are timed first, then
run again under torch's profiler, which slows them: from that second run only
the shares are taken. Operators count with the time between their start and end
that no other operator accounts for; the sampler is timed by the engine itself;
the rest is what remains of the step, compiled elementwise code and Python alike.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Literal, cast

from torch.profiler import ProfilerActivity, profile

from bench.local_engine import LocalEngine, greedy
from bench.workload import Workload
from model_service.protocol import StepStats

LINEARS = {"mkldnn::_linear_pointwise", "lockstep::packed_product", "lockstep::panel_product"} | {
    f"aten::{name}" for name in ("linear", "matmul", "mm", "addmm", "bmm")
}
ATTENTION = {"lockstep::attention"} | {
    f"aten::{name}"
    for name in (
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "index_put_",
        "_index_put_impl_",
    )
}

TIMED_STEPS = 40
PROFILED_STEPS = 12


@dataclass(frozen=True, slots=True)
class Split:
    """The step of one workload.

    Attributes:
        streams: rows that decode.
        step_s: median duration, without the profiler.
        compiled: whether the steps ran as compiled graphs.
        linears: share of the step, as the three below.
    """

    streams: int
    step_s: float
    compiled: bool
    linears: float
    attention: float
    sampler: float

    @property
    def rest(self) -> float:
        """Share of everything else."""
        return 1 - self.linears - self.attention - self.sampler

    def markdown(self) -> str:
        """Returns a line of the table."""
        shares = (self.linears, self.attention, self.sampler, self.rest)
        path = "compiled" if self.compiled else "eager"
        cells = " | ".join(f"{share:.0%}" for share in shares)
        return f"| {self.streams} | {self.step_s * 1000:.1f} | {path} | {cells} |"


HEADER = "| streams | step ms | path | linears | attention | sampler | rest |\n" + "|---" * 7 + "|"


def split(engine: LocalEngine, workload: Workload) -> Split:
    """Measures the steps in which all prompts of a workload decode."""
    _submit(engine, workload)
    timed = [_decode_step(engine) for _ in range(TIMED_STEPS)]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        profiled = [_decode_step(engine) for _ in range(PROFILED_STEPS)]
        wall = time.perf_counter() - start
    engine.drain()

    def share(names: set[str]) -> float:
        events = profiler.key_averages()
        return float(sum(e.self_cpu_time_total for e in events if e.key in names)) / 1e6 / wall

    return Split(
        streams=workload.streams,
        step_s=statistics.median(stats.duration_s for stats in timed),
        compiled=all(stats.compiled for stats in timed),
        linears=share(LINEARS),
        attention=share(ATTENTION),
        sampler=sum(stats.sample_s for stats in profiled) / wall,
    )


def _submit(engine: LocalEngine, workload: Workload) -> None:
    engine.submit(engine.prompts(workload, seed=0), greedy(workload.new_tokens))
    while _decode_step(engine).decode_rows < workload.streams:
        pass


def _decode_step(engine: LocalEngine) -> StepStats:
    stats = engine.step()
    assert stats is not None
    return stats


def main() -> None:
    """Splits the steps of as many streams as each further argument says."""
    folder, dtype, decode_graphs, prompt_tokens, *streams = sys.argv[1:]
    engine = LocalEngine(folder, dtype, cast(Literal["auto", "off"], decode_graphs))
    engine.graphs.close()  # what was not compiled until now stays so
    new_tokens = TIMED_STEPS + PROFILED_STEPS + 2
    for count in streams:
        workload = Workload(int(count), int(prompt_tokens), new_tokens)
        print(split(engine, workload).markdown(), flush=True)


if __name__ == "__main__":
    main()
