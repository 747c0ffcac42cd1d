"""What Prometheus reads at `/metrics`. Gauges are computed when they are asked for: idle costs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.service import Service
from journal.log import JournalError

REGISTRY = CollectorRegistry()
REQUEST_SECONDS = Histogram(
    "vecraft_request_seconds",
    "Time to answer a request, by route.",
    ["method", "route"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class _NodeMetrics(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield from _positions(service)
        clock = service.clock
        yield GaugeMetricFamily("vecraft_hlc_drift_ms", "How far the clock is ahead of physical time.", clock.drift_ms())
        yield CounterMetricFamily("vecraft_hlc_drift_errors", "Stamps refused for drift.", clock.drift_errors)
        yield CounterMetricFamily("vecraft_dead_letters", "Records written to the dead letters.", service.replayer.buried)
        yield GaugeMetricFamily("vecraft_ready", "Whether the node is ready.", int(service.ready()))
        for name in ("points", "vectors", "indexed", "segments"):
            gauge = GaugeMetricFamily(f"vecraft_{name}", f"Number of {name}, by collection.", labels=["collection"])
            for collection in service.replayer.catalog.view.collections.values():
                count = sum(shard.status()[name] for shard in service.shards.of(collection.id))
                gauge.add_metric([collection.name], count)
            yield gauge


def _positions(service: Service) -> Iterator[Metric]:
    applied = service.replayer.applied.get()
    labels = ["topic", "partition"]
    position = GaugeMetricFamily("vecraft_applied_offset", "Next offset to apply.", labels=labels)
    lag = GaugeMetricFamily("vecraft_replay_lag_records", "Records in the log that are not applied.", labels=labels)
    try:
        ends = service.journal.end_offsets(list(applied))
    except JournalError:
        ends = {}
    for partition, offset in applied.items():
        names = [partition.topic, str(partition.partition)]
        position.add_metric(names, offset)
        if partition in ends:
            lag.add_metric(names, max(0, ends[partition] - offset))
    yield position
    yield lag


def exposition(service: Service) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_NodeMetrics(service))
    return generate_latest(REGISTRY) + generate_latest(registry)
