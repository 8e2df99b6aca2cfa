"""The tables of a run: ratios first."""

import json
import statistics
from collections.abc import Iterable

from bench.parts.part import Figure, Part
from bench.run_folder import RunFolder
from bench.spread import spread

Rounds = dict[int, dict[str, float]]


def markdown(part: type[Part], run: RunFolder) -> str:
    """Returns the table of a part: a line per case and side, what it is held against before it."""
    ratios = any(record.against for record in run.of(part.name))
    titles = [f"{figure.title}: ratio" for figure in part.figures if ratios]
    titles += [figure.title for figure in part.figures]
    header = [part.case_title, "side", "rounds", *titles]
    lines = [_line(header), "|" + "---|" * len(header)]
    for case, side, against in dict.fromkeys(
        (r.case, r.side, r.against) for r in run.of(part.name)
    ):
        theirs = run.rounds_of(part.name, case, side)
        ours = run.rounds_of(part.name, case, against) if against else {}
        cells = [case, side, str(len(theirs))]
        found = [ratio(figure, ours, theirs) if ours else [] for figure in part.figures if ratios]
        cells += [spread(values, 2) if values else "" for values in found]
        cells += [spread([r[f.name] for r in theirs.values()], f.digits) for f in part.figures]
        lines.append(_line(cells))
    return "\n".join((f"### {part.title}", "", *lines, ""))


def ratio(figure: Figure, ours: Rounds, theirs: Rounds) -> list[float]:
    """Returns how much better ours is, by round: above 1 it is. Nothing compares with 0."""
    both = [(ours[n][figure.name], theirs[n][figure.name]) for n in sorted(theirs) if n in ours]
    return [(a / b if figure.more_is_better else b / a) for a, b in both if a and b]


def summary(parts: Iterable[type[Part]], run: RunFolder) -> str:
    """Returns the medians of a run, and those of its ratios, as JSON."""
    found = []
    for part in parts:
        for case, side, against in dict.fromkeys(
            (r.case, r.side, r.against) for r in run.of(part.name)
        ):
            theirs = run.rounds_of(part.name, case, side)
            ours = run.rounds_of(part.name, case, against) if against else {}
            found.append(
                {
                    "part": part.name,
                    "case": case,
                    "side": side,
                    "rounds": len(theirs),
                    "medians": {
                        f.name: statistics.median(r[f.name] for r in theirs.values())
                        for f in part.figures
                    },
                    "against": against,
                    "ratios": {
                        f.name: statistics.median(values)
                        for f in part.figures
                        if ours and (values := ratio(f, ours, theirs))
                    },
                }
            )
    return json.dumps(found, indent=2) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
