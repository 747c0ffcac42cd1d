"""U2, A3: from the ingest topic into the state, exactly once; the simulator does the same under faults."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from catalog.collection import CollectionConfig, Distance, VectorParams
from journal.ids import encode_id
from journal.log import Headers, Indefinite, TopicPartition, pending
from journal.memory import AppendFault
from journal.records import CreateCollection, Delete, DeleteCollection, Ingested, Upsert
from journal.writer import Origin
from tests.replayer.ingest.ingest_rig import SHARDS, IngestRig, upsert
from tests.replayer.rig import TOPICS


def test_many_records_become_few_that_say_where_each_point_came_from(rig: IngestRig) -> None:
    """U2, V3"""
    for n in range(20):
        rig.produce(upsert(n, n))
    rig.produce({"collection": "d", "id": 3, "op": "delete"})
    rig.produce(upsert(3, 300))
    rig.settle()
    assert rig.payloads() == {encode_id(n): {"n": 300 if n == 3 else n} for n in range(20)}
    records = rig.records()
    assert sum(isinstance(operation, Upsert) for _, operation in records) == 3, "one for each shard, and one after the delete"
    origins = {point_id: offset for i, o in records[:2] for point_id, offset in zip(o.ids, i.offsets, strict=True)}  # type: ignore[union-attr,attr-defined]
    assert origins == {encode_id(n): n for n in range(20)}
    assert {ingested.log for ingested, _ in records if ingested} == {f"{TOPICS.ingest}/0"}
    assert rig.journal.committed(rig.ingest.group, [TopicPartition(TOPICS.ingest, 0)]) == {TopicPartition(TOPICS.ingest, 0): 22}


def test_what_another_member_writes_again_is_applied_once(rig: IngestRig) -> None:
    """U2: a member that dies between writing and committing; the other begins before it, and cuts its batches elsewhere."""
    for n in range(6):
        rig.produce(upsert(n % 2, n))
    rig.ingest._commit = lambda positions: None  # type: ignore[method-assign]
    rig.settle()
    before = rig.payloads()
    rig.ingest.close()
    rig.produce({"collection": "d", "id": 0, "op": "patch", "payload": {"later": True}})
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads() == {**before, encode_id(0): {"n": 4, "later": True}}
    offsets = [offset for ingested, _ in rig.records() if ingested for offset in ingested.offsets]
    assert sorted(offsets) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6], "the journal has them twice, the state once"
    verdicts = [part.verdict for part in rig.replayer.operations.of(f"{TOPICS.ingest}/0/0-4")]
    assert verdicts == ["applied", "repeated"]


@pytest.mark.parametrize("fault", AppendFault)
def test_nothing_is_committed_that_is_not_acknowledged(rig: IngestRig, fault: AppendFault) -> None:
    """I2: also where one shard's record failed and another's did not."""
    for n in range(4):
        rig.produce(upsert(n, n))
    failing = [fault]
    rig.journal._fault = lambda partition: failing.pop() if failing and partition.topic == TOPICS.tier(2) else None
    with pytest.raises(Exception, match="append"):
        rig.ingest.step(0)
    assert rig.journal.committed(rig.ingest.group, [TopicPartition(TOPICS.ingest, 0)]) == {}
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads() == {encode_id(n): {"n": n} for n in range(4)}


def test_an_event_that_is_sent_again_changes_nothing(rig: IngestRig) -> None:
    """U2: `ce_id` is the idempotency key, for each point."""
    event: Headers = [("ce_id", b"17"), ("ce_source", b"/shop")]
    rig.produce(upsert(1, 1), headers=event)
    rig.produce(upsert(1, 2))
    rig.produce(upsert(1, 1), headers=event)
    rig.produce(upsert(1, 1), headers=event, partition=4)
    rig.produce(upsert(2, 5), headers=event)
    rig.settle()
    assert rig.payloads() == {encode_id(1): {"n": 2}, encode_id(2): {"n": 5}}


def test_the_header_picks_the_tier(rig: IngestRig) -> None:
    """U2, V1"""
    rig.produce(upsert(1, 1), headers=[("vecraft-tier", b"0")])
    rig.produce(upsert(2, 2))
    rig.settle()
    assert [len(rig.records(tier)) for tier in range(4)] == [1, 0, 1, 0]
    assert len(rig.payloads()) == 2


def test_what_cannot_be_written_is_a_dead_letter_and_holds_nothing_up(rig: IngestRig) -> None:
    """A3, I6"""
    rig.produce(b"poison")
    rig.produce(upsert(1, 1, vector=[1, 2, 3]))
    rig.produce(upsert(1, 1, collection="nowhere"))
    rig.produce(upsert(1, 1, payload={"x": "y" * 1_000_000}))
    rig.produce(upsert(2, 2))
    rig.settle()
    assert rig.payloads() == {encode_id(2): {"n": 2}}
    letters = rig.replayer.letters.list()
    assert [(letter.collection, letter.offset) for letter in letters] == [("", 0), ("d", 1), ("nowhere", 2), ("d", 3)]
    for letter, reason in zip(
        letters, ("malformed", "expected dim: 2, got 3", "`nowhere` doesn't exist", "a record holds at most"), strict=True
    ):
        assert reason in letter.reason
    assert (rig.ingest.written, rig.ingest.dead) == (1, 4)


def test_a_collection_created_a_moment_ago_is_found(rig: IngestRig) -> None:
    """U2, I9: the record waits until this node's catalog is where the log is."""
    config = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}))
    rig.writer.write_catalog(CreateCollection("new", config, SHARDS[:1]), Origin("create")).result()
    rig.produce(upsert(1, 1, collection="new"))
    with pytest.raises(Exception, match="not read to its end"):
        rig.ingest.step(0)
    rig.ingest.close()
    rig.replayer.step(0)
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads(2) == {encode_id(1): {"n": 1}}


def test_a_collection_that_is_made_anew_begins_with_what_comes_then(rig: IngestRig) -> None:
    rig.produce(upsert(1, 1))
    rig.settle()
    rig.writer.write_catalog(DeleteCollection("d"), Origin("delete")).result()
    rig.replayer.step(0)
    rig.create("d", *SHARDS)
    rig.replayer.step(0)
    rig.produce(upsert(2, 2))
    rig.settle()
    assert rig.payloads(3) == {encode_id(2): {"n": 2}}


def test_a_topic_made_anew_under_a_member_is_noticed(rig: IngestRig) -> None:
    """U2: its offsets begin again, and must not be taken for those that were read before."""
    rig.produce(upsert(1, 1))
    rig.settle()
    ingest = TopicPartition(TOPICS.ingest, 0)
    rig.journal._logs[ingest].clear()
    rig.journal.commit(rig.ingest.group, {ingest: 0})
    rig.journal.identities = lambda topics: {topic: f"{topic}:anew" for topic in topics}  # type: ignore[method-assign]
    rig.produce(upsert(2, 2))
    assert rig.ingest._member is not None
    rig.ingest._member._reader.assign({ingest: 0})  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="step back to 0"):
        rig.ingest.step(0)
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads() == {encode_id(1): {"n": 1}, encode_id(2): {"n": 2}}


def test_a_restart_remembers_what_was_ingested(rig: IngestRig, tmp_path: Path) -> None:
    """I3: the last offset of origin lies in the same write as the points."""
    rig.produce(upsert(1, 1))
    rig.settle()
    ingested = Ingested(f"{TOPICS.ingest}/0", [0])
    rig.replayer.close()
    rig.replayer.open()
    shard = next(n for n, shard in enumerate(rig.shards.of(1)) if len(shard.alive))
    home = TopicPartition(TOPICS.tier(2), SHARDS[shard][2])
    again = rig.record(
        Delete([encode_id(1)]), collection=1, catalog_position=2, shard=shard, ingested=ingested, request_id="again"
    )
    rig.append(again, home)
    assert [part.verdict for part in rig.replayer.operations.of("again")] == ["repeated"]
    assert rig.payloads() == {encode_id(1): {"n": 1}}


def test_a_write_that_is_not_acknowledged_in_time_is_indefinite(rig: IngestRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the member begins again at the last commit, as after any failure of the journal."""
    monkeypatch.setattr("replayer.ingest.member.ACKNOWLEDGE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(rig.writer, "write_ingested", lambda *_: pending())
    rig.produce(upsert(1, 1))
    with pytest.raises(Indefinite):
        rig.ingest.step(0)
