"""Where every history plays: the topics and bounds, and the few names and ids there are."""

from __future__ import annotations

from journal.ids import encode_id
from journal.topics import Topics
from shard.batch import Limits
from shard.ranking import execution
from shard.vectors.segment_policy import SegmentPolicy

execution.SCAN_FLOATS, execution.LEAST_BREADTH = 0, 1  # walks through graphs of few points, too

TOPICS = Topics("sim")
LIMITS = Limits(idempotency_window_ms=60_000, history_ms=40_000)
POLICY = SegmentPolicy(seal_rows=6)
NAMES = ("a", "b")
COLLECTIONS = ("red", "blue")
EXTERNAL_IDS = (0, 1, 2, 3, 4, 5, 6, 7, "b7a9c2c0-0000-0000-0000-000000000001", "free text")
IDS = [encode_id(i) for i in EXTERNAL_IDS]
INGESTED = "green"
"""A collection that only foreign producers write to, and nobody deletes."""
START_MS = 1_700_000_000_000
