"""What a metric is, and how numbers become its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from pyrope.metrics import Durations, Sizes

Labels = TypeVar("Labels", bound="str | tuple[str, ...]")
"""The values of a metric's labels; of a single one, just that."""

SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005,
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""Upper bounds of buckets: a hit takes some microseconds, a search alone some hundred of them."""

_NANOSECONDS = tuple(round(bound * 1e9) for bound in SECONDS)
_NAMED_SECONDS = tuple(f"{bound:g}" for bound in SECONDS)

SIZE_POWERS = 13
"""Sizes have buckets up to 1, 2, 4, … and 4096."""

_NAMED_SIZES = tuple(str(2**power) for power in range(SIZE_POWERS))


class Kind(StrEnum):
    """Prometheus' types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Described:
    """A metric, declared once: the page of all metrics is made of these.

    Attributes:
        name: in full, as queries have it.
        labels: their names.
        info: what INFO calls the same, if it tells it; a metric with labels may be told there one
            by one.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    info: str = ""

    def is_(self, value: float) -> Metric:
        """The metric without labels, with this value."""
        return self.are({(): value})

    def are(self, values: Mapping[Labels, float]) -> Metric:
        """The metric with a value for each of these labels."""
        family: CounterMetricFamily | GaugeMetricFamily
        if self.kind is Kind.COUNTER:
            family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        else:
            family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(_listed(labels), value)
        return family

    def took(self, durations: Durations) -> Metric:
        """The histogram of durations in seconds, without labels."""
        return self.took_each({(): (durations,)})

    def took_each(self, durations: Mapping[Labels, Iterable[Durations]]) -> Metric:
        """The histograms of durations in seconds; of several for the same labels, their sum."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, some in durations.items():
            counts, total, seconds = [0] * len(SECONDS), 0, 0.0
            for one in some:
                histogram = one.histogram
                folded = histogram.folded(_NANOSECONDS)
                counts = [a + b for a, b in zip(counts, folded, strict=True)]
                total += histogram.recorded_total
                seconds += one.seconds
            family.add_metric(_listed(labels), _buckets(_NAMED_SECONDS, counts, total), seconds)
        return family

    def had(self, sizes: Sizes) -> Metric:
        """The histogram of sizes."""
        family = HistogramMetricFamily(self.name, self.help)
        counts = sizes.folded(SIZE_POWERS)
        family.add_metric((), _buckets(_NAMED_SIZES, counts, sizes.count), sizes.total)
        return family


def _listed(labels: str | tuple[str, ...]) -> Sequence[str]:
    return (labels,) if isinstance(labels, str) else labels


def _buckets(bounds: Sequence[str], counts: Sequence[int], total: int) -> list[tuple[str, float]]:
    return [*zip(bounds, map(float, counts), strict=True), ("+Inf", float(total))]


def counter(name: str, help_: str, *labels: str, info: str = "") -> Described:
    """Declare what only ever grows, but for restarts."""
    return Described(name, Kind.COUNTER, help_, labels, info)


def gauge(name: str, help_: str, *labels: str, info: str = "") -> Described:
    """Declare what goes up and down."""
    return Described(name, Kind.GAUGE, help_, labels, info)


def histogram(name: str, help_: str, *labels: str) -> Described:
    """Declare a distribution."""
    return Described(name, Kind.HISTOGRAM, help_, labels)
