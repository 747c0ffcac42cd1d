"""What RocksDB and librdkafka measure of themselves, reduced to a few numbers. docs/metrics.md has their meanings.

Neither library is imported here: the files that may import them pass their numbers in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

Statistics = Mapping[str, Mapping[str, float]]
"""By part (a database or a client), and by name."""

_ROCKSDB = {
    "rocksdb_memtable_bytes": "rocksdb.cur-size-all-mem-tables",
    "rocksdb_file_bytes": "rocksdb.total-sst-files-size",
    "rocksdb_level0_files": "rocksdb.num-files-at-level0",
    "rocksdb_pending_compaction_bytes": "rocksdb.estimate-pending-compaction-bytes",
    "rocksdb_background_errors": "rocksdb.background-errors",
    "rocksdb_writes_stopped": "rocksdb.is-write-stopped",
}
_BLOCK_CACHE = "rocksdb.block-cache-usage"

KAFKA_EVERY_MS = 15_000
"""As often as Prometheus asks by default."""


def of_rocksdb(families: Iterable[Callable[[str], int | None]]) -> dict[str, float]:
    """The sums over column families, of each its function from a property to its value. They share one block cache.

    A family that is closed meanwhile is left out.
    """
    sums: dict[str, float] = dict.fromkeys([*_ROCKSDB, "rocksdb_block_cache_bytes"], 0)
    for value_of in families:
        try:
            for name, of in _ROCKSDB.items():
                sums[name] += value_of(of) or 0
            sums["rocksdb_block_cache_bytes"] = max(sums["rocksdb_block_cache_bytes"], value_of(_BLOCK_CACHE) or 0)
        except Exception:  # RocksDB's errors have no class of their own
            continue
    return sums


class ClientStatistics:
    """The latest numbers of each Kafka client. Clients give theirs on their own threads; any thread reads."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[str, float]] = {}

    def settings(self, client: str) -> dict[str, Any]:
        """The settings with which a client gives its numbers, under the name `client`. The latest of one name count."""

        def note(text: str) -> None:
            self._latest[client] = of_client(orjson.loads(text))

        return {"statistics.interval.ms": KAFKA_EVERY_MS, "stats_cb": note}

    def get(self) -> Statistics:
        """By client; nothing of one that has not given any yet."""
        return dict(self._latest)


def of_client(given: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one client, from librdkafka's statistics as it gives them (STATISTICS.md of librdkafka)."""
    brokers = [broker for broker in given.get("brokers", {}).values() if broker.get("nodeid", -1) >= 0]
    lags = [
        partition["consumer_lag"]
        for topic in given.get("topics", {}).values()
        for partition in topic["partitions"].values()
        if partition.get("consumer_lag", -1) >= 0
    ]
    return {
        "kafka_queue_messages": given.get("msg_cnt", 0),
        "kafka_queue_bytes": given.get("msg_size", 0),
        "kafka_brokers_up": sum(broker.get("state") == "UP" for broker in brokers),
        "kafka_round_trip_seconds": max((broker.get("rtt", {}).get("avg", 0) for broker in brokers), default=0) / 1e6,
        "kafka_errors": sum(
            broker.get(name, 0) for broker in given.get("brokers", {}).values() for name in ("txerrs", "rxerrs", "req_timeouts")
        ),
        "kafka_consumer_lag_records": sum(lags),
    }
