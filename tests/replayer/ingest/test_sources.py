"""U2: topics of others as sources, from their records into the state; and the members that come and go with them."""

from __future__ import annotations

import threading

import msgspec
import orjson
import pytest

from catalog.ingest import FieldMapping, SourceConfig
from journal.ids import encode_id
from journal.log import Definite, TopicPartition, TopicSpec
from journal.records import Delete, DeleteIngestSource, PutIngestSource
from journal.registry import SchemaRegistry
from journal.topics import shard_of
from replayer.ingest.member import Ingest
from replayer.ingest.sources import IngestSources
from replayer.ingest.status import State, status_of
from tests.replayer.ingest.ingest_rig import IngestRig, upsert
from tests.replayer.ingest.test_control import home
from tests.replayer.rig import TOPICS

SHOP = TopicPartition("shop", 0)
WAIT_S = 20


def put(rig: IngestRig, name: str = "shop", collection: str = "d", **mapping: object) -> None:
    rig.journal.ensure_topics({"shop": TopicSpec(1)})
    config = SourceConfig("shop", collection, "debezium", FieldMapping(**mapping))  # type: ignore[arg-type]
    rig.command(PutIngestSource(name, msgspec.json.encode(config)))


def send(rig: IngestRig, op: str, sku: int, **row: object) -> None:
    value = orjson.dumps({"op": op, "after": None if op == "d" else {"sku": sku, **row}})
    rig.journal.append(SHOP, value, orjson.dumps({"sku": sku})).result()


def read(rig: IngestRig, name: str = "shop") -> Ingest:
    """Reads a source to its end with a member of its own."""
    member = rig.member(name)
    while member.step(0) + rig.replayer.step(0):
        pass
    member.close()
    return member


def test_the_life_of_a_row(rig: IngestRig) -> None:
    """Also an update of which PostgreSQL does not log the vector: it stays."""
    put(rig, vector="v", payload={"title": "title"})
    send(rig, "c", 1, title="chair", v=[1, 2])
    send(rig, "c", 2, title="table", v=[3, 4])
    send(rig, "u", 1, title="stool", v="__debezium_unavailable_value")
    send(rig, "d", 2)
    rig.journal.append(SHOP, b"", orjson.dumps({"sku": 2})).result()
    member = read(rig)
    assert rig.payloads() == {encode_id(1): {"title": "stool"}}
    assert (member.written, member.dead) == (5, 0)
    assert {ingested.log for ingested, _ in rig.records() if ingested} == {f"{rig.source('shop').id}/shop/0"}


def test_two_sources_of_one_topic_do_not_disturb_each_other(rig: IngestRig) -> None:
    """Each applies all of it, and each buries what it cannot take."""
    put(rig, "first", vector="v")
    put(rig, "second", payload={"name": "title"})
    send(rig, "c", 1, title="chair", v=[1, 2])
    send(rig, "t", 2)
    read(rig, "first")
    read(rig, "second")
    assert rig.payloads() == {encode_id(1): {"name": "chair"}}
    rig.replayer.step(0)
    assert [letter.offset for letter in rig.replayer.letters.list()] == [1, 1]


def test_a_source_made_again_begins_anew(rig: IngestRig) -> None:
    put(rig, vector="v", payload={})
    send(rig, "c", 1, v=[1, 2])
    read(rig)
    rig.append(rig.record(Delete([encode_id(1)]), collection=1, catalog_position=2, shard=_shard(1)), home(1))
    rig.command(DeleteIngestSource("shop"))
    put(rig, vector="v", payload={})
    read(rig)
    assert rig.payloads() == {encode_id(1): {}}


def test_a_topic_that_may_not_be_seen_is_a_failure_of_its_source_alone(rig: IngestRig, monkeypatch: pytest.MonkeyPatch) -> None:
    put(rig)
    member = rig.member("shop")

    def denied(topic: str) -> list[TopicPartition]:
        raise Definite(f"Kafka does not allow asking for topic {topic}")

    monkeypatch.setattr(rig.journal, "partitions", denied)
    member._note(Definite("not allowed"))
    status = status_of(rig.journal, TOPICS, rig.source("shop"), member, "member")
    assert (status.state, status.partitions, status.last_failure) == (State.FAILED, [], ("not allowed", rig.now_ms))
    member.close()


def test_members_come_and_go_with_the_sources_of_the_catalog(rig: IngestRig) -> None:
    """And what a source has counted stays counted when it is gone."""
    rig.ingest.close()
    others = set(threading.enumerate())  # nodes of other tests may still run
    made: list[str] = []
    changed = threading.Event()

    class Counted(Ingest):
        def __init__(self, name: str) -> None:
            self.__dict__.update(rig.member(name).__dict__)
            self.close()
            made.append(name)

        def step(self, timeout_s: float) -> int:
            count = super().step(0.01)
            if count:
                changed.set()
            return count

    sources = IngestSources(lambda source: Counted(source.name), lambda: rig.replayer.catalog.view, SchemaRegistry())
    rig.replayer.follow_catalog(sources.follow)
    running = threading.Thread(target=sources.run, daemon=True)
    running.start()
    put(rig, vector="v")
    send(rig, "c", 1, v=[1, 2])
    assert changed.wait(WAIT_S)
    member = sources.member(rig.source("shop"))
    assert member is not None
    gone = rig.source("shop")
    rig.command(DeleteIngestSource("shop"))
    while sources.member(gone) is not None:
        assert running.is_alive()
    assert made == ["default", "shop"]
    changed.clear()
    rig.produce(upsert(2, 2))
    assert changed.wait(WAIT_S)
    sources.stop()
    running.join(WAIT_S)
    assert not running.is_alive()
    assert (sources.written, sources.failure, sources.group) == (2, None, "v.ingest")
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("ingest-")]


def _shard(number: int) -> int:
    return shard_of(encode_id(number), 2)
