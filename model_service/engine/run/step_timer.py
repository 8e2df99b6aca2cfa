"""How long the model takes for a step, on whatever it runs.

A GPU is given its work and does it later, so the time until a call returns says
nothing; events among that work do. They are read when the sampler has waited for
the GPU anyway.
"""

import time
from typing import Any

import torch


class StepTimer:
    """Measures one step after the other: `begin`, the model, `end`, and later `elapsed_s`."""

    def __init__(self, device: torch.device) -> None:
        """Takes the device that is done last."""
        self._device = device
        self._start_s = self._end_s = 0.0
        event: Any = torch.cuda.Event
        self._events = [event(enable_timing=True) for _ in range(2 * (device.type == "cuda"))]

    def begin(self) -> None:
        """Takes note of when the model is called."""
        self._start_s = time.monotonic()
        if self._events:
            self._events[0].record(torch.cuda.current_stream(self._device))

    def end(self) -> None:
        """Takes note of when the model is done."""
        if self._events:
            self._events[1].record(torch.cuda.current_stream(self._device))
        self._end_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Returns the seconds between; waits for a GPU that nobody has waited for."""
        if not self._events:
            return self._end_s - self._start_s
        first, last = self._events
        if not last.query():
            last.synchronize()
        return float(first.elapsed_time(last)) / 1e3
