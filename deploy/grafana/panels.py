"""What a dashboard is made of, and the shapes of its queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# What a reader chooses: name, label and query of each. It offers what is there within those before.
VARIABLES = (
    ("namespace", "Namespace", "label_values(lockstep_ready, namespace)"),
    ("pod", "Pod", 'label_values(lockstep_ready{namespace=~"$namespace"}, pod)'),
    (
        "instance",
        "Instance",
        'label_values(lockstep_ready{namespace=~"$namespace",pod=~"$pod"}, instance)',
    ),
    (
        "model",
        "Model",
        'label_values(lockstep_model_requests_running{namespace=~"$namespace"}, model_name)',
    ),
)

# The selectors of every query, of the variables that all dashboards have. Outside of Kubernetes
# nothing has a namespace or a pod, which `.*` matches too.
REPLICA = 'namespace=~"$namespace",pod=~"$pod",instance=~"$instance"'
MODEL = f'{REPLICA},model_name=~"$model"'
PER_REPLICA = ("pod", "instance")
WINDOW = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """One set of lines.

    Attributes:
        expression: PromQL.
        legend: template of the lines' names.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, heat map or number.

    Attributes:
        title: what is shown.
        description: what to conclude from it.
        unit: Grafana's name of the unit.
        queries: its lines, numbers, or the buckets of the heat map.
        kind: how they are drawn.
        limits: of a number: from the first on it is orange, from the second on red; a number that
            is bad when it is low has the larger one first.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "heatmap", "stat"] = "lines"
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A titled group of panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        name: of its file, and the end of its identity.
        title: as Grafana lists it.
        description: what it answers.
        rows: what it shows.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]


def quantiles(metric: str, labels: str, legend: str = "") -> tuple[Query, ...]:
    """Gives the median, p95 and p99 of a histogram, in one line each per `legend` label."""
    by = f"le, {legend}" if legend else "le"
    name = f" {{{{{legend}}}}}" if legend else ""
    rate = f"sum by ({by}) (rate({metric}_bucket{{{labels}}}[{WINDOW}]))"
    return tuple(
        Query(f"histogram_quantile({quantile}, {rate})", f"p{quantile * 100:.0f}{name}")
        for quantile in (0.5, 0.95, 0.99)
    )


def rate(metric: str, labels: str, *by: str, name: str = "") -> Query:
    """Gives the rate per second of a counter, summed over all labels but `by`."""
    legend = _legend(name, by) or metric.removesuffix("_total")
    expression = f"rate({metric}{{{labels}}}[{WINDOW}])"
    return Query(f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})", legend)


def mean(metric: str, labels: str, *, name: str = "mean") -> Query:
    """Gives the mean of a histogram's observations over the window."""
    selector = f"{{{labels}}}[{WINDOW}]"
    quotient = f"sum(rate({metric}_sum{selector})) / sum(rate({metric}_count{selector}))"
    return Query(quotient, name)


def gauge(metric: str, labels: str, *by: str, function: str = "sum", name: str = "") -> Query:
    """Gives a gauge, combined over all labels but `by`."""
    legend = _legend(name, by) or metric
    return Query(f"{function} by ({', '.join(by)}) ({metric}{{{labels}}})", legend)


def _legend(name: str, by: Sequence[str]) -> str:
    """Names a line by what is shown, if the panel shows more, and by its labels."""
    return " ".join(filter(None, (name, *(f"{{{{{label}}}}}" for label in by))))


def heatmap(title: str, description: str, unit: str, metric: str, labels: str) -> Panel:
    """Gives a histogram over time, by bucket."""
    buckets = f"sum by (le) (increase({metric}_bucket{{{labels}}}[{WINDOW}]))"
    return Panel(title, description, unit, (Query(buckets, "{{le}}"),), kind="heatmap")


def stat(
    title: str,
    description: str,
    unit: str,
    expression: str,
    limits: tuple[float, float] | None = None,
) -> Panel:
    """Gives one number."""
    return Panel(title, description, unit, (Query(expression, title),), kind="stat", limits=limits)


def filled_in(expression: str, window: str) -> str:
    """Returns a query as Grafana sends it when all of everything is chosen.

    Args:
        expression: the query.
        window: over which rates are taken, as `15s`.
    """
    for name, *_ in VARIABLES:
        expression = expression.replace(f"${name}", ".*")
    return expression.replace(WINDOW, window)
