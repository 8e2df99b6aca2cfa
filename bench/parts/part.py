"""What every part of the benchmark says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.setup import Setup

Side = Callable[[str, int], dict[str, float]]
"""Measures a case in a round, and returns its figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a part measures.

    Attributes:
        name: in records, with its unit.
        title: in tables.
        digits: behind the point, in tables.
        more_is_better: whether a ratio is ours / theirs or, as for times, theirs / ours.
    """

    name: str
    title: str
    digits: int = 1
    more_is_better: bool = True


class Part(ABC):
    """A part: cases, each measured on every side in turn, round by round.

    Attributes:
        name: on the command line and in records.
        title: of its table.
        case_title: what a case is.
        figures: the columns.
    """

    name: str
    title: str
    case_title: str
    figures: Sequence[Figure]

    def __init__(self, setup: Setup) -> None:
        """Measures what a setup has."""
        self._setup = setup

    @property
    @abstractmethod
    def cases(self) -> Sequence[str]:
        """Names of the cases."""

    @abstractmethod
    def sides(self) -> Mapping[str, Side]:
        """Starts what is measured. Returns how, by name: first ours, then what it is held to."""
