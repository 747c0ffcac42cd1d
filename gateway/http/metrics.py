"""The Prometheus metrics at `/metrics`. Gauges are computed on each scrape, so they cost nothing in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.services import NodeState, Services
from journal.hlc import millis_of
from journal.log import TopicPartition
from journal.topics import TIERS

REGISTRY = CollectorRegistry()
REQUEST_SECONDS = Histogram(
    "vecraft_request_seconds",
    "Time to answer a request, by route.",
    ["method", "route"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


_APPEND_SECONDS = Histogram(
    "vecraft_append_seconds",
    "Time from the write of a request to its acknowledgement by the journal, by tier.",
    ["tier"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
APPEND_SECONDS = [_APPEND_SECONDS.labels(str(tier)) for tier in TIERS]
"""By tier."""

_PARTITION = ["topic", "partition"]


class _NodeMetrics(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        results, node = self._services.results, self._services.node
        yield from _lag(node)
        yield from _ingest(node)
        yield from _dead_letters(node)
        yield CounterMetricFamily("vecraft_result_cache_hits", "Searches answered from the result cache.", results.hits)
        yield CounterMetricFamily("vecraft_result_cache_misses", "Searches that the cache did not have.", results.misses)
        clock = node.clock
        yield GaugeMetricFamily("vecraft_hlc_drift_ms", "How far the clock is ahead of physical time.", clock.drift_ms())
        yield CounterMetricFamily("vecraft_hlc_drift_errors", "Stamps refused for drift.", clock.drift_errors)
        yield GaugeMetricFamily("vecraft_ready", "Whether the node is ready.", int(node.ready()))
        quarantined = [([q.collection, str(q.number)], 1) for q in node.shards.quarantined().values()]
        text = "Shards that are not served because something failed inside them."
        yield _gauge("vecraft_quarantined_shards", text, ["collection", "shard"], quarantined)
        yield from _closing(node)
        turns = self._services.decided.turns
        rounds = [([outcome], count) for outcome, count in turns.rounds.items()]
        text = "Rounds of writes that depend on what is stored; repeated: some of the points had changed."
        yield _counter("vecraft_decided_rounds", text, ["outcome"], rounds)
        waiting = turns.waiting
        yield GaugeMetricFamily("vecraft_decided_waiting", "Writes that have, or wait for, their turn about points.", waiting)
        for name in ("points", "vectors", "indexed", "segments"):
            counts = [
                ([collection.name], sum(shard.status()[name] for shard in node.shards.served(collection.id)))
                for collection in node.replayer.catalog.view.collections.values()
            ]
            yield _gauge(f"vecraft_{name}", f"Number of {name}, by collection.", ["collection"], counts)


_Values = Iterable[tuple[Sequence[str], float]]


def _gauge(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for names, value in values:
        gauge.add_metric(names, value)
    return gauge


def _counter(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    counter = CounterMetricFamily(name, text, labels=labels)
    for names, value in values:
        counter.add_metric(names, value)
    return counter


def _lag(node: NodeState) -> Iterator[Metric]:
    """The applied offsets and the lag of this node: by partition, and by shard and home partition."""
    applied = node.replayer.applied.get()
    positions = [(_names(p), offset) for p, offset in applied.items()]
    yield _gauge("vecraft_applied_offset", "Next offset to apply.", _PARTITION, positions)
    measured = node.measured_lag()
    reached = float(measured.keys() == applied.keys() and bool(applied))
    yield GaugeMetricFamily(
        "vecraft_journal_reachable", "Whether the journal says where it ends: without, no lag is known.", reached
    )
    ends = [(_names(p), measure.end) for p, measure in measured.items()]
    yield _gauge("vecraft_end_offset", "Next offset of the log.", _PARTITION, ends)
    states = [(_names(p), measure.state) for p, measure in measured.items()]
    yield _gauge("vecraft_replay_lag_state", "0 normal, 1 warning, 2 critical, 3 back-pressure.", _PARTITION, states)
    shards = [
        (collection.name, shard.number, partition)
        for collection in node.replayer.catalog.view.collections.values()
        for shard in node.shards.served(collection.id)
        for partition in shard.home_partitions()
        if partition in measured
    ]
    for name, text in _MEASURES.items():
        by_partition = {p: getattr(measure.lag, name) for p, measure in measured.items()}
        values = [(_names(p), value) for p, value in by_partition.items()]
        yield _gauge(f"vecraft_replay_lag_{name}", text, _PARTITION, values)
        of_shards = [([collection, str(number), *_names(p)], by_partition[p]) for collection, number, p in shards]
        yield _gauge(f"vecraft_shard_lag_{name}", f"{text} By shard.", ["collection", "shard", *_PARTITION], of_shards)


def _closing(node: NodeState) -> Iterator[Metric]:
    """How far each shard is closed, and how many of its points wait for that."""
    shards = [([shard.collection.name, str(shard.number)], shard) for shard in node.shards.all()]
    now_ms, labels = node.clock.physical_ms(), ["collection", "shard"]
    ages = [(names, (now_ms - millis_of(shard.closed())) / 1000) for names, shard in shards if shard.closed()]
    yield _gauge("vecraft_closed_age_seconds", "Age of the closed stamp: nothing will be written before it.", labels, ages)
    unsettled = [(names, shard.unsettled()) for names, shard in shards]
    yield _gauge("vecraft_unsettled_points", "Points whose history waits for the closed stamp to advance.", labels, unsettled)


_MEASURES = {
    "records": "Records in the log that are not applied.",
    "bytes": "Size of the records that are not applied, estimated from those read lately.",
    "seconds": "Age of the oldest record that is not applied.",
    "buffered": "Bytes read and not yet applied.",
}


def _ingest(node: NodeState) -> Iterator[Metric]:
    ingest = node.ingest
    outcomes = [(["written"], ingest.written), (["dead"], ingest.dead)]
    yield _counter("vecraft_ingest_records", "Records read from the ingest topic, by outcome.", ["outcome"], outcomes)
    lag = [(_names(p), records) for p, records in node.ingest_lag().items()]
    yield _gauge("vecraft_ingest_lag_records", "Records of the ingest topic that no node has written yet.", _PARTITION, lag)


def _dead_letters(node: NodeState) -> Iterator[Metric]:
    """By collection, only for existing ones: producers may write any collection name."""
    letters = node.letters()
    sizes = letters.sizes(node.replayer.catalog.view.collections)
    yield CounterMetricFamily("vecraft_dead_letters", "Records this node has written to the dead letters.", node.buried())
    for name, text, counts in (
        ("evictions", "Dead letters that left for newer ones.", letters.evictions),
        ("expirations", "Dead letters that left for their age.", letters.expirations),
    ):
        values = [([collection], counts.get(collection, 0)) for collection in sizes]
        yield _counter(f"vecraft_dlq_{name}", text, ["collection"], values)
    values = [([collection], size) for collection, size in sizes.items()]
    yield _gauge("vecraft_dlq_size", "Dead letters, by collection; empty for those of none that exists.", ["collection"], values)


def _names(partition: TopicPartition) -> list[str]:
    return [partition.topic, str(partition.partition)]


def exposition(services: Services) -> bytes:
    """All metrics in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_NodeMetrics(services))
    return generate_latest(REGISTRY) + generate_latest(registry)
