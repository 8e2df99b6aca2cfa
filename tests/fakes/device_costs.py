"""What pretended GPUs would cost: operators launched, uploads, and waits of the CPU for them."""

import sys
from collections import Counter
from dataclasses import dataclass, field

LAUNCH_S = 1e-5
"""What an operator takes on a pretended GPU."""


@dataclass(slots=True)
class Costs:
    """What has been asked of pretended GPUs.

    Attributes:
        launches: operators that compute something.
        uploads: copies from the CPU to a device.
        waits: synchronisations, by what waited and the line of the engine that asked for it.
    """

    launches: int = 0
    uploads: int = 0
    waits: Counter[str] = field(default_factory=Counter)

    @property
    def synchronisations(self) -> int:
        """How often the CPU has waited for a device."""
        return self.waits.total()

    def clear(self) -> None:
        """Begins to count anew."""
        self.launches = self.uploads = 0
        self.waits.clear()


counted = Costs()


def wait(what: str) -> None:
    """Counts that the CPU waits for a device."""
    frame = sys._getframe(1)
    while frame is not None and "/model_service/" not in frame.f_code.co_filename:
        frame = frame.f_back
    where = "elsewhere"
    if frame is not None:
        where = f"{frame.f_code.co_filename.rpartition('/model_service/')[2]}:{frame.f_lineno}"
    counted.waits[f"{what} at {where}"] += 1


def upload(*, blocking: bool = True) -> None:
    """Counts a copy to a device."""
    counted.uploads += 1
    if blocking:
        wait("upload")


class Event:
    """`torch.cuda.Event`: when the operators that were launched before it are done."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._launches = self._waits = 0

    def record(self, stream: object = None) -> None:
        """Stands behind all that was launched."""
        self._launches, self._waits = counted.launches, counted.synchronisations

    def query(self) -> bool:
        """Whether it has passed, which is only known when something was waited for."""
        return counted.synchronisations > self._waits

    def synchronize(self) -> None:
        """Waits until it has passed."""
        wait("event")

    def elapsed_time(self, end: "Event") -> float:
        """Returns milliseconds."""
        return (end._launches - self._launches) * LAUNCH_S * 1e3
