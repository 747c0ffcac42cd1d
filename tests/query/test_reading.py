"""What filters select is remembered with a view, within bounds (I11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert
from journal.topics import TIERS, Topics
from query import reading
from query.reading import Reading, Where, where
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.shard import Shard

TOPICS = Topics()
COUNT = 100


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """Points 0 … 99, whose payload's `n` is their id."""
    config = CollectionConfig({"": VectorParams(2, Distance.DOT)})
    shard = Shard(tmp_path, Collection("c", 0, config, [[0 for _ in TIERS]]), 0, TOPICS, Limits(), lambda task: None)
    operation = Upsert([encode_id(n) for n in range(COUNT)], [], [b'{"n": %d}' % n for n in range(COUNT)])
    shard.apply([(Entry(TopicPartition(TOPICS.tier(1), 0), 0, 1000, None, b"", ()), Record(stamp_at(1000), operation, 0))])
    yield shard
    shard.close()


def below(bound: int) -> Where:
    wanted = where(msgspec.convert({"must": [{"key": "n", "range": {"lt": bound}}]}, Condition))
    assert wanted is not None
    return wanted


def selected(shard: Shard, wanted: Where) -> int:
    found = Reading([shard], [wanted]).among(0, wanted)
    assert found is not None
    return len(found)


def test_what_a_filter_selects_is_remembered_until_the_next_write(shard: Shard) -> None:
    wanted = below(60)
    assert selected(shard, wanted) == 60
    assert list(shard.view.selections) == [wanted.key]
    shard.apply([])
    assert not shard.view.selections


def test_rows_that_are_remembered_are_bounded(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: a filter may select every row of a large shard."""
    monkeypatch.setattr(reading, "MAX_SELECTED_ROWS", 80)
    for bound in (30, 100, 40, 50, 20):
        assert selected(shard, below(bound)) == bound
        kept = sum(len(rows) for rows in shard.view.selections.values())
        assert kept <= 80
    assert below(30).key in shard.view.selections, "what came first stays"
    assert below(20).key in shard.view.selections, "and the latest"


def test_filters_that_are_remembered_are_bounded(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11"""
    monkeypatch.setattr(reading, "MAX_SELECTIONS", 3)
    for bound in range(10):
        assert selected(shard, below(bound)) == bound
        assert len(shard.view.selections) <= 3


def test_a_filter_is_remembered_by_a_short_key() -> None:
    """I11: filters may be as long as a body."""
    wanted = where(msgspec.convert({"must": [{"key": "n", "match": {"any": list(range(10_000))}}]}, Condition))
    assert wanted is not None
    assert len(wanted.key) == 16
    assert below(1).key == below(1).key != below(2).key
