"""Draws the dashboards from the answers of a Prometheus: for pages, and where there is no Grafana.

`python -m deploy.grafana.pictures http://localhost:9090` draws the last ten minutes.
"""

import argparse
import io
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from deploy.grafana.panels import filled_in

DASHBOARDS = Path(__file__).parent / "dashboards"

# A cell of Grafana's grid, which is 24 wide, in inches.
CELL_WIDTH, CELL_HEIGHT, COLUMNS = 0.5, 0.24, 24
DOTS_PER_INCH = 100
COLORS = 128
POINTS = 120
MOST_NAMES, LONGEST_NAME = 9, 26
HEADROOM = 1.45  # above the highest line, for the legend
GAP = 0.9  # cells between panels, for titles and axes

_SMALL, _LARGE = 6, 18
_STATES = {"green": "#3a8f3a", "orange": "#e07b00", "red": "#c4162a"}


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a graph.

    Attributes:
        labels: what tells it from the others.
        times: `[N]` seconds of Unix time.
        values: `[N]`, NaN included.
    """

    labels: Mapping[str, str]
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Answers:
    """What a Prometheus knows of a stretch of time.

    Attributes:
        url: of the server.
        start: of the stretch, in seconds of Unix time.
        end: of the stretch.
        window: over which rates are taken, as `15s`.
    """

    url: str
    start: float
    end: float
    window: str

    def to(self, expression: str) -> list[Series]:
        """Asks for all values of an expression."""
        step = (self.end - self.start) / POINTS
        asked = {"query": filled_in(expression, self.window), "start": self.start, "end": self.end}
        query = urllib.parse.urlencode({**asked, "step": step})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{query}", timeout=60) as page:
            found = json.load(page)["data"]["result"]
        return [
            Series(
                one["metric"],
                np.array([float(moment) for moment, _ in one["values"]]),
                np.array([float(value) for _, value in one["values"]]),
            )
            for one in found
        ]


def draw(dashboard: Mapping[str, Any], answers: Answers) -> Image.Image:
    """Draws a dashboard, as its JSON has it."""
    panels = dashboard["panels"]
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in panels)
    figure = Figure(
        (COLUMNS * CELL_WIDTH, height * CELL_HEIGHT), dpi=DOTS_PER_INCH, facecolor="white"
    )
    draw_kind = {"stat": _draw_number, "timeseries": _draw_lines, "heatmap": _draw_heatmap}
    for panel in panels:
        place = panel["gridPos"]
        x, y = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / height
        if panel["type"] == "row":
            figure.text(x + 0.004, y, panel["title"], fontsize=9, weight="bold", va="bottom")
            continue
        box = (
            x + GAP * 1.4 / COLUMNS,
            y + GAP * 1.6 / height,
            (place["w"] - GAP * 1.8) / COLUMNS,
            (place["h"] - GAP * 3.2) / height,
        )
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=_SMALL + 1, loc="left", pad=3)
        axes.tick_params(labelsize=_SMALL, length=2, width=0.4)
        for side in axes.spines.values():
            side.set_visible(False)
        draw_kind[panel["type"]](axes, panel, answers)
    page = io.BytesIO()
    figure.savefig(page, format="png")
    return Image.open(page).convert("RGB").quantize(COLORS)


def _draw_lines(axes: Axes, panel: Mapping[str, Any], answers: Answers) -> None:
    lines = [
        (_named(target["legendFormat"], series.labels), series)
        for target in panel["targets"]
        for series in answers.to(target["expr"])
    ]
    lines.sort(key=lambda line: -_largest(line[1]))  # the legend may be too short for all
    for name, series in lines:
        axes.plot(series.times - answers.start, series.values, linewidth=0.8, label=name)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.grid(linewidth=0.3, color="#dddddd")
    axes.set_xlim(0, answers.end - answers.start)
    axes.set_ylim(0, HEADROOM * max((_largest(series) for _, series in lines), default=1) or 1)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[:MOST_NAMES],
        [name[:LONGEST_NAME] for name in names[:MOST_NAMES]],
        fontsize=_SMALL - 1,
        loc="upper left",
        ncols=3,
        frameon=False,
        labelspacing=0.2,
        handlelength=1,
        columnspacing=1,
    )


def _draw_heatmap(axes: Axes, panel: Mapping[str, Any], answers: Answers) -> None:
    (target,) = panel["targets"]
    found = sorted(answers.to(target["expr"]), key=lambda series: float(series.labels["le"]))
    times = np.unique(np.concatenate([series.times for series in found]))
    below = np.array([np.interp(times, series.times, series.values) for series in found])
    counts = np.diff(below, axis=0, prepend=0.0)  # each bucket holds those before it
    used = np.flatnonzero(counts.max(axis=1) > 0)
    rows = slice(used[0], used[-1] + 1) if len(used) else slice(0, len(found))
    axes.pcolormesh(
        times - answers.start,
        np.arange(len(found[rows]) + 1) - 0.5,
        counts[rows, : len(times) - 1],
        cmap="Oranges",
        vmin=0,
    )
    unit = panel["fieldConfig"]["defaults"]["unit"]
    edges = [float(series.labels["le"]) for series in found[rows]]
    every = math.ceil(len(edges) / 8)
    axes.set_yticks(range(0, len(edges), every), [shown(x, unit) for x in edges[::every]])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")


def _draw_number(axes: Axes, panel: Mapping[str, Any], answers: Answers) -> None:
    (target,) = panel["targets"]
    axes.set_xticks([])
    axes.set_yticks([])
    values = [series.values[-1] for series in answers.to(target["expr"])]
    defaults = panel["fieldConfig"]["defaults"]
    text, color = "none", "#888888"
    if values and not math.isnan(values[0]):
        text, color = shown(values[0], defaults["unit"]), _state(values[0], defaults)
    axes.text(0.5, 0.45, text, fontsize=_LARGE, color=color, ha="center", va="center")


def _largest(series: Series) -> float:
    """Returns the largest number of a line; 0 where it has none."""
    numbers = series.values[np.isfinite(series.values)]
    return float(numbers.max()) if len(numbers) else 0.0


def _state(value: float, defaults: Mapping[str, Any]) -> str:
    """Returns the color of the highest threshold that a number reaches."""
    reached = [
        step["color"]
        for step in defaults.get("thresholds", {}).get("steps", ())
        if step["value"] is None or value >= step["value"]
    ]
    return _STATES[reached[-1] if reached else "green"]


def _named(template: str, labels: Mapping[str, str]) -> str:
    """Fills in a legend, without what is empty."""
    filled = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)
    return " ".join(filled.split()) or template


def shown(value: float, unit: str) -> str:
    """Writes a number with its unit, briefly."""
    if math.isinf(value):
        return "∞"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{value * 1000:.3g} ms"
    suffix = {"bytes": "B", "Bps": "B/s", "reqps": "/s", "ops": "/s"}.get(unit, "")
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{suffix}"
    return f"{value:.3g} {suffix}".rstrip()


def draw_all(answers: Answers, folder: Path) -> None:
    """Writes a picture of each dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(DASHBOARDS.glob("*.json")):
        picture = draw(json.loads(path.read_text()), answers)
        picture.save(folder / f"{path.stem}.png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the Prometheus, as http://localhost:9090")
    parser.add_argument("--minutes", type=float, default=10.0, help="how far back")
    parser.add_argument("--window", default="1m", help="over which rates are taken")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the pictures go")
    given = parser.parse_args(arguments)
    end = time.time()
    draw_all(Answers(given.url, end - 60 * given.minutes, end, given.window), given.folder)


if __name__ == "__main__":
    main()
