"""Writes `dashboards/*.json` from `boards`. A test fails when the files are behind."""

import itertools
import json
import string
from pathlib import Path
from typing import Any, TypeAlias

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import VARIABLES, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"

# Never the name of one installation's data source: the reader chooses it.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 8  # of a graph; the page is 24 wide
NUMBER_WIDTH, NUMBER_HEIGHT = 4, 4

# Moments that explain a change in a graph.
ANNOTATIONS = (
    (
        "Revisions of the vocabulary",
        'changes(lockstep_tokenizer_vocab_revision{namespace=~"$namespace"}[1m]) > 0',
        "blue",
    ),
    (
        "Deployments and restarts",
        'time() - process_start_time_seconds{job=~"lockstep-.*",namespace=~"$namespace"} < 60',
        "purple",
    ),
)

Built: TypeAlias = timeseries.Panel | heatmap.Panel | stat.Panel


def render(shown: Board) -> str:
    """Returns a dashboard as JSON."""
    board = (
        dashboard.Dashboard(shown.title)
        .uid(f"lockstep-{shown.name}")
        .description(shown.description)
        .tags(["lockstep"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("Lockstep")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["lockstep"])
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    for name, label, query in VARIABLES:
        board = board.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for name, expression, color in ANNOTATIONS:
        board = board.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(SOURCE)
            .expr(expression)
            .icon_color(color)
            .enable(True)
        )
    ids = itertools.count(1)
    for row in shown.rows:
        board = board.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            board = board.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _panel(panel: Panel) -> Built:
    kinds: dict[str, Any] = {"lines": _lines, "heatmap": _heatmap, "stat": _number}
    built: Built = kinds[panel.kind](panel)
    built = (
        built.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    )
    for ref, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        target = (
            prometheus.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(ref)
            .datasource(SOURCE)
        )
        if panel.kind == "heatmap":
            target = target.format(PromQueryFormat.HEATMAP)
        elif "_seconds_bucket{" in query.expression:
            target = target.exemplar(True)  # points that lead to a trace
        built = built.with_target(target)
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )


def _heatmap(panel: Panel) -> heatmap.Panel:
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges")
    return heatmap.Panel().span(WIDTH).height(HEIGHT).calculate(False).color(colors.steps(64))


def _number(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel().span(NUMBER_WIDTH).height(NUMBER_HEIGHT).color_mode(BigValueColorMode.VALUE)
    )
    if panel.limits is None:
        return built
    warning, bad = panel.limits
    colors = [(None, "green"), (warning, "orange"), (bad, "red")]
    if bad < warning:
        colors = [(None, "red"), (bad, "orange"), (warning, "green")]
    return built.thresholds(
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in colors])
    )


if __name__ == "__main__":
    for each in BOARDS:
        (FOLDER / f"{each.name}.json").write_text(render(each))
