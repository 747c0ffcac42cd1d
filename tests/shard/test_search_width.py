"""`?explain=true` tells what was searched, and how wide the graphs (V11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, TurboQuantization, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.ranking import execution
from shard.ranking.execution import Steps
from shard.ranking.rankings import Nearest, SearchParams
from shard.shard import Shard
from shard.vectors.segment_policy import SegmentPolicy
from tests.conftest import SCANNED_FLOATS
from tests.reading import now, pinned

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)


def step_of_search(folder: Path, params: SearchParams) -> dict[str, Any]:
    """What a search of a graph over 200 points says of itself."""
    collection = Collection("c", 0, CollectionConfig({"": VectorParams(8, Distance.DOT)}), [[0 for _ in TIERS]])
    shard = Shard(folder, collection, 0, TOPICS, Limits(), lambda task: task(), SegmentPolicy(seal_rows=200))
    vectors = np.random.default_rng(1).standard_normal((200, 8), np.float32)
    operation = Upsert([encode_id(number) for number in range(200)], [VectorColumn.of("", vectors)], [b"{}"] * 200)
    shard.apply([(Entry(HOME, 0, 1000, None, b"", ()), Record(stamp_at(1000), operation, 0))])
    steps: Steps = []
    now(search(pinned([shard]), Stage(Nearest("", np.ones(8, np.float32)), 10, params=params), steps))
    shard.close()
    (step,) = [step for step in steps if step["step"] == "search"]
    return step


@pytest.mark.parametrize(("params", "ef"), [(SearchParams(), 88), (SearchParams(ef=99), 99), (SearchParams(ef=1), 30)])
def test_explain_tells_the_width_that_was_used(tmp_path: Path, params: SearchParams, ef: int) -> None:
    """It is at least what a limit of 16 needs: so the answers to smaller limits are the beginning of those to larger ones."""
    step = step_of_search(tmp_path, params)
    assert (step["plan"], step["ef"]) == ("graph", [ef])


def test_few_floats_are_all_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(execution, "SCAN_FLOATS", SCANNED_FLOATS)
    assert step_of_search(tmp_path, SearchParams())["plan"] == "scan"


@pytest.mark.parametrize(
    ("params", "plan"),
    [
        (SearchParams(), "codes"),
        (SearchParams(exact=True), "scan"),
        (SearchParams(ignore_codes=True), "scan"),
    ],
)
def test_codes_of_multi_vectors_are_searched_unless_the_search_is_exact(tmp_path: Path, params: SearchParams, plan: str) -> None:
    """All plans give the same scores; a filter with few matches compares these."""
    config = CollectionConfig({"": VectorParams(8, Distance.COSINE, multi=True)}, quantization=TurboQuantization())
    shard = Shard(tmp_path, Collection("c", 0, config, [[0 for _ in TIERS]]), 0, TOPICS, Limits(), lambda task: task())
    vectors = list(np.random.default_rng(1).standard_normal((1_000, 2, 8), np.float32))
    operation = Upsert([encode_id(number) for number in range(1_000)], [VectorColumn.of_each("", vectors)], [b"{}"] * 1_000)
    shard.apply([(Entry(HOME, 0, 1000, None, b"", ()), Record(stamp_at(1000), operation, 0))])
    shard.tend(idle=True)
    steps: Steps = []
    query = vectors[7] / np.linalg.norm(vectors[7], axis=1, keepdims=True)
    found = now(search(pinned([shard]), Stage(Nearest("", query), 10, params=params), steps))
    (step,) = [step for step in steps if step["step"] == "search"]
    assert step["plan"] == plan
    assert found.ids[0] == encode_id(7)
    assert found.scores[0] == pytest.approx(2, abs=1e-5)
    shard.close()
