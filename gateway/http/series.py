"""Metrics with a bound: at most MAX_SERIES series, whatever names callers and producers choose.

What comes after the first ones is one series more, whose labels are all OTHER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.durations import BUCKETS_S, Durations

MAX_SERIES = 1000
OTHER = "other"

Values = Iterable[tuple[Sequence[str], float]]
"""The labels and the value of each series."""


def gauge(name: str, text: str, labels: list[str], values: Values, rest: Callable[[Iterable[float]], float] = sum) -> Metric:
    """A gauge with labels. `rest` makes one value of those beyond MAX_SERIES."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for names, value in _bounded(values, rest):
        family.add_metric(names, value)
    return family


def counter(name: str, text: str, labels: list[str], values: Values) -> Metric:
    """A counter with labels; `name` is without `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for names, value in _bounded(values, sum):
        family.add_metric(names, value)
    return family


def histogram(name: str, text: str, labels: list[str], values: Sequence[tuple[Sequence[str], Sequence[Durations]]]) -> Metric:
    """A histogram with labels, each series of all its durations together; without those beyond MAX_SERIES."""
    family = HistogramMetricFamily(name, text, labels=labels)
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for names, durations in values[:MAX_SERIES]:
        counts = map(sum, zip(*(one.counts for one in durations), strict=True))
        family.add_metric(names, list(zip(bounds, accumulate(counts), strict=True)), sum(one.total_s for one in durations))
    return family


def _bounded(values: Values, rest: Callable[[Iterable[float]], float]) -> Values:
    given = list(values)
    if len(given) <= MAX_SERIES:
        return given
    others = [OTHER] * len(given[0][0])
    return [*given[:MAX_SERIES], (others, rest(value for _, value in given[MAX_SERIES:]))]
