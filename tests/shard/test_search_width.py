"""`?explain=true` tells how wide the graphs were searched (V11)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.ranking.execution import Steps
from shard.ranking.rankings import Nearest, SearchParams
from shard.shard import Shard
from shard.vectors.graph import DEFAULT_EF
from shard.vectors.segment_policy import SegmentPolicy
from tests.reading import now, pinned

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)


@pytest.mark.parametrize(("params", "ef"), [(SearchParams(), DEFAULT_EF), (SearchParams(ef=99), 99), (SearchParams(ef=1), 30)])
def test_explain_tells_the_width_that_was_used(tmp_path: Path, params: SearchParams, ef: int) -> None:
    collection = Collection("c", 0, CollectionConfig({"": VectorParams(8, Distance.DOT)}), [[0 for _ in TIERS]])
    shard = Shard(tmp_path, collection, 0, TOPICS, Limits(), lambda task: task(), SegmentPolicy(seal_rows=50))
    vectors = np.random.default_rng(1).standard_normal((50, 8), np.float32)
    operation = Upsert([encode_id(number) for number in range(50)], [VectorColumn.of("", vectors)], [b"{}"] * 50)
    shard.apply([(Entry(HOME, 0, 1000, None, b"", ()), Record(stamp_at(1000), operation, 0))])
    steps: Steps = []
    now(search(pinned([shard]), Stage(Nearest("", np.ones(8, np.float32)), 10, params=params), steps))
    (step,) = [step for step in steps if step["step"] == "search"]
    assert (step["plan"], step["ef"]) == ("graph", [ef])
    shard.close()
