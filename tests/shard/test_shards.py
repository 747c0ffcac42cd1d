"""All shards of a process: looking them up never finds half a collection, and what fails can be opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.log import TopicPartition
from journal.topics import Topics
from shard.batch import Limits
from shard.shard import Shard, ShardClosed
from shard.shards import AppliedPositions, Quarantine, Shards, ShardUnavailable

TOPICS = Topics()
CONFIG = CollectionConfig({"": VectorParams(2, Distance.DOT)}, shard_number=2)
COLLECTION = Collection("c", 7, CONFIG, [[0, 0, 0, 0], [1, 1, 1, 1]], created_ms=5)
PARTITION = TopicPartition("t", 0)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path, TOPICS, Limits(), lambda task: None)


def test_a_collection_with_a_shard_in_quarantine_is_refused_as_a_whole(shards: Shards) -> None:
    shards.open(COLLECTION)
    _, failing = shards.of(7)
    shards.quarantine(failing, RuntimeError("no space"))
    with pytest.raises(ShardUnavailable, match="shard 1 of collection 'c' is not served: RuntimeError: no space") as refusal:
        shards.of(7)
    assert refusal.value.retry_after_s == 1
    assert [shard.number for shard in shards.served(7)] == [shard.number for shard in shards.all()] == [0]
    assert shards.find(7, 1) is None
    again = shards.reopen(COLLECTION, 1)
    assert isinstance(again, Shard)
    with pytest.raises(ShardUnavailable):
        shards.of(7)
    shards.serve(again)
    assert [shard.number for shard in shards.of(7)] == [0, 1]
    assert shards.quarantined() == {}
    shards.close()
    assert shards.of(7) == []


def test_a_shard_that_could_not_be_loaded_can_be_opened_again(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """RocksDB's lock would keep the next attempt out if the first one had left it open."""
    load = Shard._load
    failures: list[Exception] = []

    def load_and_fail(shard: Shard) -> None:
        load(shard)
        if shard.number == 0 and len(failures) < 2:
            failures.append(ValueError("a damaged file"))
            raise failures[-1]  # kept, and with its trace all that it refers to

    monkeypatch.setattr(Shard, "_load", load_and_fail)
    shards.open(COLLECTION)
    assert shards.quarantined()[7, 0].failures == 1
    failed = shards.reopen(COLLECTION, 0)
    assert isinstance(failed, Quarantine)
    shards.fail(7, failed)
    assert shards.quarantined()[7, 0].failures == 2
    again = shards.reopen(COLLECTION, 0)
    assert isinstance(again, Shard)
    shards.serve(again)
    assert len(shards.of(7)) == 2
    shards.close()


def test_state_of_another_collection_under_the_same_id_is_not_taken(shards: Shards, tmp_path: Path) -> None:
    shards.open(COLLECTION)
    shards.close()
    (tmp_path / "7" / "mark").touch()
    shards.open(COLLECTION)
    assert (tmp_path / "7" / "mark").exists()
    shards.close()
    shards.open(Collection("other", 7, CONFIG, COLLECTION.homes, created_ms=6))
    assert not (tmp_path / "7" / "mark").exists()
    shards.close()


def test_a_read_that_looked_a_shard_up_before_it_closed_is_told_so(shards: Shards) -> None:
    """As a search does that waited in a queue while its collection was dropped."""
    shards.open(COLLECTION)
    shard, _ = shards.of(7)
    shards.close()
    with pytest.raises(ShardClosed, match="shard 0 of collection 'c' is closed"):
        _ = shard.view


def test_nothing_is_applied_while_state_is_opened() -> None:
    applied = AppliedPositions()
    assert not applied.covers({})
    applied.restart({PARTITION: 3})
    assert applied.covers({PARTITION: 3})
    applied.suspend()
    assert (applied.get(), applied.covers({PARTITION: 1}), applied.covers({})) == ({}, False, False)
