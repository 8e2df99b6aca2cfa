"""The rounds of a run, kept in a file that later rounds are added to."""

import datetime
import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.contender import ROOT


def now() -> str:
    """Returns the time in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Record:
    """What one side measured in one round.

    Attributes:
        part: what is measured.
        case: of the part.
        side: who was measured.
        against: the side that it is held to, which ran in the same round; empty for that side.
        round: number of the round, in which all sides of a case do the same in turn.
        figures: by name, with the unit in the name.
        commit: of this repository.
        time: when.
    """

    part: str
    case: str
    side: str
    against: str
    round: int
    figures: dict[str, float]
    commit: str
    time: str = field(default_factory=now)


class RunFolder:
    """A folder with the rounds so far, one line of JSON each."""

    def __init__(self, path: Path) -> None:
        """Reads what is there."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._file = path / "rounds.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self._records = [Record(**json.loads(line)) for line in lines]

    def of(self, part: str) -> list[Record]:
        """Returns the records of a part."""
        return [record for record in self._records if record.part == part]

    def rounds_of(self, part: str, case: str, side: str) -> dict[int, dict[str, float]]:
        """Returns the figures of a side by round."""
        return {r.round: r.figures for r in self.of(part) if (r.case, r.side) == (case, side)}

    def next_round(self, part: str, case: str) -> int:
        """Returns the number of a case's next round."""
        return max((r.round + 1 for r in self.of(part) if r.case == case), default=0)

    def add(self, records: list[Record]) -> None:
        """Adds the records of a round at once, so that no round is there in part."""
        with self._file.open("a") as file:
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))
        self._records += records


def commit() -> str:
    """Returns the commit that is measured, with a plus where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=8", "--exclude=*", "--dirty=+"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
