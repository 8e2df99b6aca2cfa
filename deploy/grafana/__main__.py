"""Writes `dashboards/lockstep.json` from `panels.py`. A test fails when the file is behind."""

import itertools
import json
import string
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from deploy.grafana.panels import ROWS, Panel

PATH = Path(__file__).parent / "dashboards" / "lockstep.json"

# Never the name of one installation's data source: the reader chooses it.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 8  # of a panel; the page is 24 wide

VARIABLES = (
    ("instance", "Instance", "label_values(lockstep_ready, instance)"),
    ("model", "Model", "label_values(lockstep_model_requests_running, model_name)"),
)


def render() -> str:
    """Returns the dashboard as JSON."""
    board = (
        dashboard.Dashboard("Lockstep")
        .uid("lockstep")
        .description("The tokenizer and the model service: calls, latency, engine, vocabulary.")
        .tags(["lockstep"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
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
    ids = itertools.count(1)
    for row in ROWS:
        board = board.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            board = board.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _panel(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .min(0)
        .datasource(SOURCE)
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
    for ref, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        built = built.with_target(
            prometheus.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(ref)
            .datasource(SOURCE)
        )
    return built


if __name__ == "__main__":
    PATH.write_text(render())
