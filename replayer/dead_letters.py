"""Dead letters: records that no replica can apply, kept with their origin and the reason (I6).

The headers are those of Kafka Connect's dead letter queues, so that ordinary tools show them. The key is the record's origin:
what several replicas write about one record folds into one under compaction.
"""

from __future__ import annotations

from concurrent.futures import Future

from journal.log import Appended, Entry, Journal
from journal.topics import Topics


def write_dead_letter(journal: Journal, topics: Topics, entry: Entry, reason: str) -> Future[Appended]:
    """Appends the dead letter of `entry`; the record's own key comes back as the header `vecraft-original-key`."""
    topic, partition = entry.partition
    headers = [
        *entry.headers,
        ("__connect.errors.topic", topic.encode()),
        ("__connect.errors.partition", str(partition).encode()),
        ("__connect.errors.offset", str(entry.offset).encode()),
        ("__connect.errors.exception.message", reason.encode()),
        ("vecraft-original-timestamp", str(entry.time_ms).encode()),
    ]
    if entry.key is not None:
        headers.append(("vecraft-original-key", entry.key))
    origin = f"{topic}/{partition}/{entry.offset}".encode()
    return journal.append(topics.dead_letter_partition, entry.value, origin, headers)
