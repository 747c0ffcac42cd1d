"""Gauges and counters with a bound: at most MAX_SERIES series, whatever names callers and producers choose.

What comes after the first ones is one series more, whose labels are all OTHER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

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


def _bounded(values: Values, rest: Callable[[Iterable[float]], float]) -> Values:
    given = list(values)
    if len(given) <= MAX_SERIES:
        return given
    others = [OTHER] * len(given[0][0])
    return [*given[:MAX_SERIES], (others, rest(value for _, value in given[MAX_SERIES:]))]
