"""Metrics whose series all exist from the start.

Their labels come from closed sets, so every series can be made when the metric is declared: a
rate is 0 before the first event, not absent, and a value outside of its set is a KeyError.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

PREFIX = "lockstep_model_"

# The ladder that vLLM and the OpenTelemetry conventions use, with finer steps from 0.1 ms to
# 50 ms, where the steps of all devices are.
LATENCY_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04),
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
TOKEN_BUCKETS = tuple(2.0**exponent for exponent in range(18))

T = TypeVar("T", bound=MetricWrapperBase)


class Series(Generic[T]):
    """The series of one metric."""

    def __init__(self, children: Mapping[tuple[str, ...], T]) -> None:
        """Takes the series by the values of their labels."""
        self._children = children

    def of(self, *values: str) -> T:
        """Returns the series with these values, in the order of the labels."""
        return self._children[values]


class Families:
    """Declares the metrics of one model."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        """Declares nothing yet.

        Args:
            registry: where the metrics are collected.
            model_name: value of the label `model_name`, which all of them have.
        """
        self.registry = registry
        self.model_name = model_name

    def gauge(self, name: str, text: str) -> Gauge:
        """Declares a gauge of one series."""
        return self.gauges(name, text).of()

    def gauges(self, name: str, text: str, **labels: Iterable[str]) -> Series[Gauge]:
        """Declares a gauge, with the values of each label."""
        return self._declare(Gauge, name, text, labels)

    def counter(self, name: str, text: str) -> Counter:
        """Declares a counter of one series."""
        return self.counters(name, text).of()

    def counters(self, name: str, text: str, **labels: Iterable[str]) -> Series[Counter]:
        """Declares a counter, with the values of each label."""
        return self._declare(Counter, name, text, labels)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """Declares a histogram of one series."""
        return self.histograms(name, text, buckets).of()

    def histograms(
        self,
        name: str,
        text: str,
        buckets: tuple[float, ...] = LATENCY_BUCKETS_S,
        **labels: Iterable[str],
    ) -> Series[Histogram]:
        """Declares a histogram, with the values of each label."""
        return self._declare(Histogram, name, text, labels, buckets=buckets)

    def _declare(
        self,
        kind: type[T],
        name: str,
        text: str,
        labels: Mapping[str, Iterable[str]],
        **options: Any,
    ) -> Series[T]:
        names = ("model_name", *labels)
        metric = kind(PREFIX + name, text, names, registry=self.registry, **options)
        return Series(
            {
                values: metric.labels(self.model_name, *values)
                for values in product(*labels.values())
            }
        )
