"""The metrics at `/metrics` by the names of the dialect, so that its users' dashboards show this node too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.durations import Answered
from gateway.handlers.telemetry import NAME, anonymous, memory_bytes
from gateway.http.series import counter, gauge, histogram
from gateway.services import NodeState, Services
from journal.log import TopicPartition
from replayer.lag import Measured

_MEMORY = {
    "active_bytes": "Taken from the system by the C library's allocator.",
    "allocated_bytes": "Of these, in use, with what the allocator itself needs.",
    "metadata_bytes": "Always 0: it is in the allocated ones.",
    "resident_bytes": "Memory of the process, with the pages of mapped files that are in it.",
    "retained_bytes": "Of the active ones, free and kept for later.",
}


def collected(
    services: Services, lags: Mapping[TopicPartition, Measured], per_collection: bool, anonymize: bool
) -> Iterator[Metric]:
    """`lags`: of the replay, as far as they are known.

    `per_collection`: answers are told by collection. `anonymize`: without the names of collections and vectors.
    """
    yield gauge("app_info", "1; the labels say what runs.", ["name", "version"], [([NAME, services.node.version], 1)])
    yield GaugeMetricFamily("app_status_recovery_mode", "Always 0.", 0)
    yield GaugeMetricFamily("cluster_enabled", "Always 0: nodes share nothing but the log.", 0)
    yield from _collections(services.node, lags, anonymize)
    yield from _answers(services, per_collection, anonymize)
    for name, value in (memory_bytes() or {}).items():
        yield GaugeMetricFamily(f"memory_{name}", _MEMORY[name], value)


def _collections(node: NodeState, lags: Mapping[TopicPartition, Measured], anonymize: bool) -> Iterator[Metric]:
    named = anonymous if anonymize else str
    collections = list(node.replayer.catalog.view.collections.values())
    statuses = [
        (named(collection.name), [shard.status() for shard in node.shards.served(collection.id)]) for collection in collections
    ]
    vectors = [
        ([name, named(vector)], sum(status["vectors_by_name"].get(vector, 0) for status in of_shards))
        for name, of_shards in statuses
        for vector in dict.fromkeys(vector for status in of_shards for vector in status["vectors_by_name"])
    ]
    yield GaugeMetricFamily("collections_total", "Number of collections.", len(collections))
    points = [([name], sum(status["points"] for status in of_shards)) for name, of_shards in statuses]
    yield gauge("collection_points", "Number of points, by collection.", ["id"], points)
    yield gauge("collection_vectors", "Number of vectors, by collection and vector.", ["collection", "vector"], vectors)
    yield GaugeMetricFamily("collections_vector_total", "Number of vectors.", sum(count for _, count in vectors))
    queues = [([named(one.name)], sum(lags[home].lag.records for home in node.homes(one) if home in lags)) for one in collections]
    yield gauge("collection_update_queue_length", "Records that are not applied, by collection.", ["id"], queues)
    running = [
        (
            [name],
            sum(segments.running is not None for shard in node.shards.served(one.id) for segments in shard.segments().values()),
        )
        for one, (name, _) in zip(collections, statuses, strict=True)
    ]
    yield gauge("collection_running_optimizations", "Graphs that are being built, by collection.", ["id"], running)


def _answers(services: Services, per_collection: bool, anonymize: bool) -> Iterator[Metric]:
    """Numbers and durations of answers: of the node by kind, or by kind and collection."""
    kinds = ["method", "endpoint", "status"]
    if per_collection:
        of = services.times.of_collections(services.reads.catalog.collections)
        named = anonymous if anonymize else str
        answers = [([*_labels(kind), named(name)], one) for name, by in of.items() for kind, one in by.items()]
        kinds.append("collection")
    else:
        answers = [(_labels(kind), one) for kind, one in services.times.all().items()]
    yield counter("rest_responses", "Answers.", kinds, [(names, one.count) for names, one in answers])
    failed = [(names, one.count) for names, one in answers if names[2] >= "400"]
    yield counter("rest_responses_fail", "Answers of a status of 400 or above.", kinds, failed)
    for name, text, values in (
        ("avg", "Mean time of the latest answers.", [(names, one.mean_s) for names, one in answers]),
        ("min", "Shortest time of an answer.", [(names, one.shortest_s) for names, one in answers]),
        ("max", "Longest time of an answer.", [(names, one.longest_s) for names, one in answers]),
    ):
        yield gauge(f"rest_responses_{name}_duration_seconds", text, kinds, values, max)
    spread = [(names, [one]) for names, one in answers]
    yield histogram("rest_responses_duration_seconds", "Time of answers.", kinds, spread)


def _labels(kind: Answered) -> list[str]:
    return [kind.method, kind.route, str(kind.status)]
