"""Parts about the processes themselves: how soon they answer, and the memory that they take."""

import time
from collections.abc import Mapping
from functools import partial

import psutil

from bench.parts.part import Figure, Part, Side

MEBIBYTE = 2**20


class Start(Part):
    """From nothing to a loaded model, with what is compiled or exported there already."""

    name = "start"
    title = "Start, with everything prepared before"
    case_title = ""
    figures = (Figure("ready_s", "ready after s", more_is_better=False),)
    cases = ("start",)

    def sides(self) -> Mapping[str, Side]:
        def measure(name: str, case: str, seed: int) -> dict[str, float]:
            start = time.perf_counter()
            with self._setup.start(name):
                return {"ready_s": time.perf_counter() - start}

        return {name: partial(measure, name) for name in self._setup.names}


class Memory(Part):
    """After the largest number of streams."""

    name = "memory"
    title = "Memory of the processes after streams"
    case_title = "streams"
    figures = (Figure("memory_mib", "MiB", 0, more_is_better=False),)

    @property
    def cases(self) -> list[str]:
        return [str(max(self._setup.streams))]

    def sides(self) -> Mapping[str, Side]:
        def measure(name: str, case: str, seed: int) -> dict[str, float]:
            self._setup.contenders[name].run(self._setup.workload(int(case)), seed)
            return {"memory_mib": resident_bytes(self._setup.pids[name]) / MEBIBYTE}

        return {name: partial(measure, name) for name in self._setup.contenders}


def resident_bytes(pid: int) -> int:
    """Returns the memory of a process and those that it started; what they share counts once."""
    first = psutil.Process(pid)
    processes = [first, *first.children(recursive=True)]
    return sum(int(process.memory_full_info().pss) for process in processes)
