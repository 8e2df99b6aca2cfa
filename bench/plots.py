"""Pictures of a run: tokens per second by streams, and what is served in time by rate."""

import statistics
from collections import defaultdict
from pathlib import Path

from bench.parts.generation import Arrivals, Prefill, Streams
from bench.parts.part import Part
from bench.run_folder import RunFolder


def draw(run: RunFolder) -> None:
    """Draws one picture per part: a panel per figure, a line per side, with the range of rounds."""
    for part in (Streams, Prefill, Arrivals):
        if run.of(part.name):
            _draw(part, run, run.path / f"{part.name}.png")


def _draw(part: type[Part], run: RunFolder, target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sides: dict[str, list[str]] = defaultdict(list)
    for record in run.of(part.name):
        if record.case not in sides[record.side]:
            sides[record.side].append(record.case)
    picture, panels = pyplot.subplots(
        1, len(part.figures), figsize=(4.5 * len(part.figures), 4), squeeze=False
    )
    for figure, panel in zip(part.figures, panels[0], strict=True):
        for side, cases in sides.items():
            values = [
                [r[figure.name] for r in run.rounds_of(part.name, case, side).values()]
                for case in cases
            ]
            middle = [statistics.median(rounds) for rounds in values]
            below = [m - min(rounds) for m, rounds in zip(middle, values, strict=True)]
            above = [max(rounds) - m for m, rounds in zip(middle, values, strict=True)]
            panel.errorbar(cases, middle, (below, above), marker="o", capsize=3, label=side)
        panel.set(xlabel=part.case_title, title=figure.title, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0][0].legend()
    picture.tight_layout()
    picture.savefig(target, dpi=120)
    pyplot.close(picture)
