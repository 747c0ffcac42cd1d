"""What filters select is remembered with a view, within bounds (I11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import shard.view
from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert
from journal.topics import TIERS, Topics
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.filters.where import Where, where
from shard.shard import Shard

TOPICS = Topics()
COUNT = 100


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Shard]:
    """Points 0 … 99, whose payload's `n` is their id."""
    config = CollectionConfig({"": VectorParams(2, Distance.DOT)})
    made = Shard(tmp_path, Collection("c", 0, config, [[0 for _ in TIERS]]), 0, TOPICS, Limits(), lambda task: None)
    operation = Upsert([encode_id(n) for n in range(COUNT)], [], [b'{"n": %d}' % n for n in range(COUNT)])
    made.apply([(Entry(TopicPartition(TOPICS.tier(1), 0), 0, 1000, None, b"", ()), Record(stamp_at(1000), operation, 0))])
    yield made
    made.close()


def below(bound: int) -> Where:
    wanted = where(msgspec.convert({"must": [{"key": "n", "range": {"lt": bound}}]}, Condition))
    assert wanted is not None
    return wanted


def selected(one: Shard, wanted: Where) -> int:
    rows = one.view.select(wanted)
    assert rows is not None
    return len(rows)


def test_what_a_filter_selects_is_remembered_until_the_next_write(one: Shard) -> None:
    assert not one.view.is_selected(below(60))
    assert selected(one, below(60)) == 60
    assert one.view.is_selected(below(60))
    one.apply([])
    assert not one.view.is_selected(below(60))


def test_any_number_of_filters_may_be_asked_of_a_view(one: Shard) -> None:
    """More than a view remembers: what leaves is found anew."""
    for bound in [*range(COUNT), *range(COUNT)]:
        assert selected(one, below(bound)) == bound


def test_filters_that_are_remembered_are_bounded(one: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11"""
    monkeypatch.setattr(shard.view, "MAX_SELECTIONS", 3)
    for bound in range(10):
        assert selected(one, below(bound)) == bound
    assert [bound for bound in range(10) if one.view.is_selected(below(bound))] == [7, 8, 9]


def test_rows_and_texts_that_are_remembered_are_bounded(one: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: a filter may select every row of a large shard, and be as long as a body."""
    monkeypatch.setattr(shard.view, "MAX_SELECTION_BYTES", 4_000)
    for bound in (10, 20, 30):
        assert selected(one, below(bound)) == bound
    assert one.view.is_selected(below(30))
    long = where(msgspec.convert({"must": [{"key": "n", "match": {"any": list(range(1_000))}}]}, Condition))
    assert long is not None
    assert selected(one, long) == COUNT
    assert not one.view.is_selected(long)
