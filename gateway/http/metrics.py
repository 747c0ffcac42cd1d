"""The Prometheus metrics at `/metrics`; docs/metrics.md lists them. Gauges are computed on each scrape, so they cost nothing in
between.

`series` bounds the number of series of a metric; `dialect_metrics` has those with the names of the dialect.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.durations import Durations
from gateway.health import Component, Status
from gateway.http import dialect_metrics
from gateway.http.series import counter, gauge, histogram
from gateway.services import NodeState, Services
from journal.hlc import millis_of
from journal.log import TopicPartition
from journal.topics import TIERS
from replayer.lag import Measured

disable_created_metrics()  # type: ignore[no-untyped-call]  # a line for each series that nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
_APPEND_SECONDS = Histogram(
    "vecraft_append_seconds",
    "Time from the write of a request to its acknowledgement by the journal, by tier.",
    ["tier"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
APPEND_SECONDS = [_APPEND_SECONDS.labels(str(tier)) for tier in TIERS]
"""By tier."""

Lags = Mapping[TopicPartition, Measured]
"""The lag of the replay by partition; empty when the log cannot be asked."""

_PARTITION = ["topic", "partition"]


def collected(services: Services, per_collection: bool, anonymize: bool) -> Iterator[Metric]:
    """The metrics that are computed when they are asked for; for the parameters see `dialect_metrics`.

    Those of the project name collections and topics, so `anonymize` leaves them out.
    """
    components = services.health.look()
    reachable = components["journal"].status is not Status.FAILING
    measured = services.node.measured_lag() if reachable else {}
    if not anonymize:
        yield from _of_project(services, components, measured)
    yield from dialect_metrics.collected(services, measured, per_collection, anonymize)


def _of_project(services: Services, components: Mapping[str, Component], measured: Lags) -> Iterator[Metric]:
    node = services.node
    yield from _state(node)
    states = [([name], int(component.status)) for name, component in components.items()]
    yield gauge("vecraft_health", "0 ok, 1 starting, 2 degraded, 3 failing.", ["component"], states)
    yield from _lag(node, measured)
    yield from _ingest(node, components["journal"].status is not Status.FAILING)
    yield from _dead_letters(node)
    yield from _requests(services)
    yield from _feeds(services)
    yield from _shards(node)
    yield from _snapshots(node)
    yield from _libraries(node)


def _state(node: NodeState) -> Iterator[Metric]:
    """What runs here, whether it is ready, and what it uses of memory, disk and time."""
    build = [([node.version, platform.python_version()], 1)]
    yield gauge("vecraft_build_info", "1; the labels say what runs.", ["version", "python"], build)
    yield GaugeMetricFamily("vecraft_ready", "Whether the node is ready.", int(node.ready()))
    yield GaugeMetricFamily("vecraft_memory_budget_bytes", "Beyond it writes that add data are refused.", node.budget.bytes)
    yield GaugeMetricFamily("vecraft_memory_used_bytes", "Memory that counts against the budget.", node.budget.used())
    if (disk := node.disk_usage()) is not None:
        yield GaugeMetricFamily("vecraft_disk_free_bytes", "Free space for the data folder.", disk.free)
        yield GaugeMetricFamily("vecraft_disk_size_bytes", "Size of the file system of the data folder.", disk.total)
    clock = node.clock
    yield GaugeMetricFamily("vecraft_hlc_drift_ms", "How far the clock is ahead of physical time.", clock.drift_ms())
    yield CounterMetricFamily("vecraft_hlc_drift_errors", "Stamps refused for drift.", clock.drift_errors)
    text = "How far the log's clock is ahead of this node's, at least; negative when it is behind."
    yield GaugeMetricFamily("vecraft_clock_skew_ms", text, clock.skew_ms)


def _requests(services: Services) -> Iterator[Metric]:
    by_route: dict[tuple[str, str], list[Durations]] = {}
    for kind, durations in services.times.all().items():
        by_route.setdefault((kind.method, kind.route), []).append(durations)
    answers = list(by_route.items())
    yield histogram("vecraft_request_seconds", "Time to answer a request, by route.", ["method", "route"], answers)
    results, turns = services.results, services.decided.turns
    yield CounterMetricFamily("vecraft_result_cache_hits", "Searches answered from the result cache.", results.hits)
    yield CounterMetricFamily("vecraft_result_cache_misses", "Searches that the cache did not have.", results.misses)
    rounds = [([outcome], count) for outcome, count in turns.rounds.items()]
    text = "Rounds of writes that depend on what is stored; repeated: some of the points had changed."
    yield counter("vecraft_decided_rounds", text, ["outcome"], rounds)
    text = "Writes that have, or wait for, their turn about points."
    yield GaugeMetricFamily("vecraft_decided_waiting", text, turns.waiting)


def _feeds(services: Services) -> Iterator[Metric]:
    followers = services.feeds.followers
    yield GaugeMetricFamily("vecraft_feed_followers", "Requests and streams that follow a feed now.", len(followers))
    yield CounterMetricFamily("vecraft_feed_events", "Changes that were told to followers.", followers.events)
    yield CounterMetricFamily("vecraft_feed_closings", "Times that a collection was closed for its followers.", followers.rounds)
    text = "Streams that ended while their reader took nothing."
    yield CounterMetricFamily("vecraft_feed_cut_off", text, followers.cut_off)


def _lag(node: NodeState, measured: Lags) -> Iterator[Metric]:
    """The applied offsets and the lag of this node: by partition, and by shard and home partition."""
    applied = node.replayer.applied.get()
    positions = [(_names(p), offset) for p, offset in applied.items()]
    yield gauge("vecraft_applied_offset", "Next offset to apply.", _PARTITION, positions)
    reached = float(measured.keys() == applied.keys() and bool(applied))
    yield GaugeMetricFamily(
        "vecraft_journal_reachable", "Whether the journal says where it ends: without, no lag is known.", reached
    )
    ends = [(_names(p), measure.end) for p, measure in measured.items()]
    yield gauge("vecraft_end_offset", "Next offset of the log.", _PARTITION, ends)
    states = [(_names(p), measure.state) for p, measure in measured.items()]
    yield gauge("vecraft_replay_lag_state", "0 normal, 1 warning, 2 critical, 3 back-pressure.", _PARTITION, states)
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
        yield gauge(f"vecraft_replay_lag_{name}", text, _PARTITION, values)
        of_shards = [([collection, str(number), *_names(p)], by_partition[p]) for collection, number, p in shards]
        yield gauge(f"vecraft_shard_lag_{name}", f"{text} By shard.", ["collection", "shard", *_PARTITION], of_shards, max)


_MEASURES = {
    "records": "Records in the log that are not applied.",
    "bytes": "Size of the records that are not applied, estimated from those read lately.",
    "seconds": "Age of the oldest record that is not applied.",
    "buffered": "Bytes read and not yet applied.",
}


def _shards(node: NodeState) -> Iterator[Metric]:
    """What is in the shards by collection, how far each shard is closed, and which are not served."""
    quarantined = [([q.collection, str(q.number)], 1) for q in node.shards.quarantined().values()]
    text = "Shards that are not served because something failed inside them."
    yield gauge("vecraft_quarantined_shards", text, ["collection", "shard"], quarantined)
    shards = [([shard.collection.name, str(shard.number)], shard) for shard in node.shards.all()]
    now_ms, labels = node.clock.physical_ms(), ["collection", "shard"]
    ages = [(names, (now_ms - millis_of(shard.closed())) / 1000) for names, shard in shards if shard.closed()]
    text = "Age of the closed stamp: nothing will be written before it."
    yield gauge("vecraft_closed_age_seconds", text, labels, ages, max)
    unsettled = [(names, shard.unsettled()) for names, shard in shards]
    yield gauge("vecraft_unsettled_points", "Points whose history waits for the closed stamp to advance.", labels, unsettled)
    statuses = [
        (collection.name, [shard.status() for shard in node.shards.served(collection.id)])
        for collection in node.replayer.catalog.view.collections.values()
    ]
    for name in ("points", "vectors", "indexed", "segments"):
        counts = [([collection], sum(status[name] for status in of_shards)) for collection, of_shards in statuses]
        yield gauge(f"vecraft_{name}", f"Number of {name}, by collection.", ["collection"], counts)


def _snapshots(node: NodeState) -> Iterator[Metric]:
    """Those of this node since its start; none without a place for them."""
    if node.snapshots is None:
        return
    counts = node.snapshots.counts
    outcomes = [(["committed"], counts.successes), (["failed"], counts.failures)]
    yield counter("vecraft_snapshots", "Snapshots of this node, by outcome.", ["outcome"], outcomes)
    text = "When the last snapshot was committed, as Unix time; 0 without one since the start."
    yield GaugeMetricFamily("vecraft_snapshot_committed_seconds", text, counts.succeeded_at_s)
    yield GaugeMetricFamily("vecraft_snapshot_duration_seconds", "How long the last snapshot took.", counts.seconds)
    yield GaugeMetricFamily("vecraft_snapshot_bytes", "Size of the files of the last snapshot.", counts.bytes)
    yield GaugeMetricFamily("vecraft_snapshot_sent_bytes", "What of it was not in the place before.", counts.sent_bytes)


def _ingest(node: NodeState, reachable: bool) -> Iterator[Metric]:
    ingest = node.ingest
    outcomes = [(["written"], ingest.written), (["dead"], ingest.dead)]
    yield counter("vecraft_ingest_records", "Records read by the ingest, by outcome.", ["outcome"], outcomes)
    lag = [([source, *_names(p)], records) for (source, p), records in node.ingest_lag().items()] if reachable else []
    text = "Records of the ingest that no node has written yet."
    yield gauge("vecraft_ingest_lag_records", text, ["source", *_PARTITION], lag)


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
        yield counter(f"vecraft_dlq_{name}", text, ["collection"], values)
    values = [([collection], size) for collection, size in sizes.items()]
    yield gauge("vecraft_dlq_size", "Dead letters, by collection; empty for those of none that exists.", ["collection"], values)
    oldest_ms, now_ms = letters.oldest_ms(), node.clock.physical_ms()
    age_s = 0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000
    yield GaugeMetricFamily("vecraft_dlq_oldest_age_seconds", "Age of the oldest dead letter; 0 without one.", age_s)


LIBRARIES = {
    "rocksdb_memtable_bytes": "Memory of rows that are not in files yet.",
    "rocksdb_block_cache_bytes": "Memory of blocks of files.",
    "rocksdb_file_bytes": "Size of the files, without the write-ahead log.",
    "rocksdb_level0_files": "Files that no compaction has merged yet; many of them slow writes down.",
    "rocksdb_pending_compaction_bytes": "What compaction still has to rewrite, estimated.",
    "rocksdb_background_errors": "Failures of flushes and compactions since the database was opened.",
    "rocksdb_writes_stopped": "Parts of databases whose writes wait for compaction.",
    "kafka_queue_messages": "Messages that wait in the client, to be sent or for their acknowledgement.",
    "kafka_queue_bytes": "Size of these messages.",
    "kafka_brokers_up": "Brokers that the client is connected to.",
    "kafka_round_trip_seconds": "Mean time of a request to the slowest broker.",
    "kafka_errors": "Failed and timed-out requests since the client was made.",
    "kafka_consumer_lag_records": "Records that the brokers have and the client has not read.",
}
"""What RocksDB and librdkafka say, by metric without `vecraft_`."""


def _libraries(node: NodeState) -> Iterator[Metric]:
    given = {**node.journal.statistics(), "state": node.shards.statistics()}
    for name, text in LIBRARIES.items():
        label = "db" if name.startswith("rocksdb_") else "client"
        values = [([part], numbers[name]) for part, numbers in given.items() if name in numbers]
        if values:
            yield gauge(f"vecraft_{name}", text, [label], values)


def _names(partition: TopicPartition) -> list[str]:
    return [partition.topic, str(partition.partition)]


def exposition(services: Services, per_collection: bool = False, anonymize: bool = False) -> bytes:
    """All metrics in the Prometheus text format. Asks the log, so it is not for an event loop."""
    lines = [line for metric in collected(services, per_collection, anonymize) for line in _lines(metric)]
    return generate_latest(REGISTRY) + "".join(lines).encode()


def _lines(metric: Metric) -> Iterator[str]:
    """A metric as text. prometheus_client's writer takes six times as long, which thousands of series make felt."""
    name = metric.name + ("_total" if metric.type == "counter" else "")
    yield f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        labels = ",".join(f'{label}="{value.translate(_ESCAPED)}"' for label, value in sample.labels.items())
        yield f"{sample.name}{{{labels}}} {float(sample.value)!r}\n" if labels else f"{sample.name} {float(sample.value)!r}\n"


_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
