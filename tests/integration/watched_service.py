"""Runs a service as `python -m` does, and writes down what nobody else in it can run beside.

A piece is what the event loop does without a break, or what a thread does without giving up the
interpreter. It is measured in CPU time of the process, so that it is the same on a busy machine.
Usage: `python -m tests.integration.watched_service FLAGS...`, with the module of the service in
the variable WATCHED_SERVICE, and the file to write to, a line of JSON for each, in WATCHED_FILE.
"""

import asyncio
import json
import os
import runpy
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHORTEST_S = 0.01
"""Shorter pieces are not written down."""

_PULSE_S = 0.002


def environment(service: str, file: Path) -> Mapping[str, str]:
    """Returns the variables of a service that is watched."""
    file.touch()
    return {"WATCHED_SERVICE": service, "WATCHED_FILE": str(file)}


def longest_s(file: Path, start: int = 0) -> Mapping[str, float]:
    """Returns the longest piece of each kind that a file has from a place on, in seconds."""
    longest = {"loop": 0.0, "interpreter": 0.0}
    for line in map(json.loads, file.read_bytes()[start:].splitlines()):
        longest[line["kind"]] = max(longest[line["kind"]], line["seconds"])
    return longest


def _watch_loop(file: Path) -> None:
    """Writes down the long pieces of the event loop."""
    run = asyncio.events.Handle._run

    def timed(handle: Any) -> None:
        what = repr(handle)
        start = time.thread_time()
        run(handle)
        _note(file, "loop", time.thread_time() - start, what)

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]


def _watch_interpreter(file: Path) -> None:
    """Writes down for how long the interpreter was not to be had."""
    while True:
        due, cpu = time.perf_counter() + _PULSE_S, time.process_time()
        time.sleep(_PULSE_S)
        # While the machine does something else, the process uses no CPU time. What threads use
        # that do not need the interpreter counts too, so this is a bound from above.
        held_s = min(time.perf_counter() - due, time.process_time() - cpu)
        _note(file, "interpreter", held_s, "")


def _note(file: Path, kind: str, seconds: float, what: str) -> None:
    if seconds >= SHORTEST_S:
        with file.open("a") as lines:
            lines.write(json.dumps({"kind": kind, "seconds": seconds, "what": what[:300]}) + "\n")


if __name__ == "__main__":
    watched = Path(os.environ["WATCHED_FILE"])
    _watch_loop(watched)
    threading.Thread(target=_watch_interpreter, args=(watched,), daemon=True).start()
    runpy.run_module(os.environ["WATCHED_SERVICE"], run_name="__main__", alter_sys=True)
