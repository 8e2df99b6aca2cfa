"""Part: what the front costs by itself, with an engine behind it that only counts."""

from collections.abc import Mapping

import psutil

from bench import counting_service
from bench.contender import Contender, environment
from bench.parts.part import Figure, Part, Side
from bench.peers import lockstep
from bench.services import model_service

MOST_STREAMS = 256
TOKENS = 16_384
PACES = {"steps of 20 ms": 0.02, "steps at once": 0.0}


class Front(Part):
    """Streams from an engine that takes no time, or as long as a real one."""

    name = "front"
    title = "The front by itself, before an engine that counts: tokens to streams"
    case_title = "engine, streams"
    figures = (
        Figure("processor_us", "front's processor, us a token", 0, more_is_better=False),
        Figure("tokens_per_s", "tok/s", 0),
        Figure("capacity_per_s", "tok/s of one processor", 0),
        Figure("gap_p99_ms", "gap p99 ms", more_is_better=False),
    )
    cases = tuple(f"{pace}, {count}" for pace in PACES for count in (1, 32, MOST_STREAMS))

    def sides(self) -> Mapping[str, Side]:
        measures = {pace: self._measure(step_s) for pace, step_s in PACES.items()}

        def measure(case: str, seed: int) -> dict[str, float]:
            pace, _, streams = case.partition(", ")
            return measures[pace](streams, seed)

        return {"ours": measure}

    def _measure(self, step_s: float) -> Side:
        """Starts a front with an engine of that pace. Returns how streams through it are timed."""
        enter = self._setup.stack.enter_context
        service = enter(
            model_service(
                str(self._setup.model),
                1,
                ("--decode-graphs", "off", "--max-running-sequences", str(MOST_STREAMS)),
                module=counting_service.__name__,
                variables={"COUNTING_STEP_S": str(step_s)},
            )
        )
        client = enter(
            Contender("client", lockstep.__name__, [service.address], variables=environment(1))
        )

        def measure(streams: str, seed: int) -> dict[str, float]:
            new_tokens = 128 if step_s else TOKENS // int(streams)
            before = _processor_s(service.pid)
            measured = client.run(
                self._setup.workload(int(streams), prompt_tokens=8, new_tokens=new_tokens), seed
            )
            used_s = _processor_s(service.pid) - before
            num_tokens = int(streams) * new_tokens
            return {
                **measured.figures(),
                "processor_us": 1e6 * used_s / num_tokens,
                "capacity_per_s": num_tokens / used_s,
            }

        return measure


def _processor_s(pid: int) -> float:
    """Returns the processor time of the front, without its engine's."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
