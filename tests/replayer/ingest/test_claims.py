"""Claims of source offsets that are not there (I6, U2): the records that come next must not vanish, and all replicas agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import TopicPartition
from journal.records import Delete, Ingested
from journal.topics import shard_of
from query import points
from replayer.ingest import claims
from shard.batch import MAX_INGEST_LOGS, Limits
from shard.shards import Shards
from tests.reading import now, pinned
from tests.replayer.ingest.ingest_rig import SHARDS, IngestRig
from tests.replayer.rig import HOME, TOPICS, Rig, replayer_on
from tests.replayer.rig import upsert as upsert_of

TIER2 = [TopicPartition(TOPICS.tier(2), homes[2]) for homes in SHARDS]


def upsert(number: int) -> dict[str, object]:
    return {"collection": "d", "id": number, "vector": [1, number], "payload": {"n": number}}


def forge(rig: IngestRig, number: int, offset: int) -> None:
    """A record straight into the tier that claims to come from an offset of the ingest topic."""
    shard = shard_of(encode_id(number), len(SHARDS))
    ingested = Ingested(f"{TOPICS.ingest}/0", [offset])
    value = rig.record(Delete([encode_id(number)]), collection=1, catalog_position=2, shard=shard, ingested=ingested)
    rig.journal.append(TIER2[shard], value).result()
    rig.replayer.step(0)


def late_replica(rig: IngestRig, folder: Path) -> list[bytes]:
    """The ids that a replica finds which replays everything now."""
    shards = Shards(folder, TOPICS, Limits(), lambda task: None)
    replayer = replayer_on(rig.journal, Clock(lambda: rig.now_ms), shards, lambda: rig.now_ms, "late")
    replayer.open()
    while replayer.step(0):
        pass
    found = sorted(now(points.matching(pinned(shards.of(1)), None))[0])
    replayer.close()
    return found


@pytest.mark.parametrize("offset", [2**62, claims.FAR_OFFSETS + 1])
def test_a_claim_far_beyond_the_end_is_refused_at_once(rig: IngestRig, offset: int, tmp_path: Path) -> None:
    rig.produce(upsert(1))
    rig.settle()
    for number in range(1, 9):
        forge(rig, number, offset)
    reason = dict(rig.dead_letters()[0].headers)["__connect.errors.exception.message"]
    assert b"did not exist when this was written" in reason
    for number in range(2, 9):
        rig.produce(upsert(number))
    rig.settle()
    assert sorted(rig.payloads()) == [encode_id(number) for number in range(1, 9)]
    rig.now_ms += 60_000
    assert late_replica(rig, tmp_path / "late") == sorted(rig.payloads())


def test_a_claim_that_may_come_true_holds_up_its_partition_only_and_not_for_long(rig: IngestRig, tmp_path: Path) -> None:
    """Refused once it is late, also by a replica that replays when the topic has grown that far."""
    rig.produce(upsert(1))
    rig.settle()
    forge(rig, 1, 4)
    assert not rig.dead_letters()
    assert sorted(rig.payloads()) == [encode_id(1)]
    rig.now_ms += Limits().max_lateness_ms + 1
    rig.replayer.step(0)
    rig.replayer.step(0)
    assert len(rig.dead_letters()) == 1
    for number in range(2, 12):
        rig.produce(upsert(number))
    rig.settle()
    assert sorted(rig.payloads()) == [encode_id(number) for number in range(1, 12)]
    assert late_replica(rig, tmp_path / "late") == sorted(rig.payloads())


def test_a_claim_that_comes_true_in_time_is_accepted_by_all(
    rig: IngestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a source topic whose end was not known yet when the record was read."""
    monkeypatch.setattr(claims, "AHEAD", 0)
    rig.produce(upsert(1))
    rig.settle()
    forge(rig, 1, 1)
    assert sorted(rig.payloads()) == [encode_id(1)]
    rig.now_ms += 500
    rig.produce(upsert(30))
    rig.replayer.step(0)
    rig.replayer.step(0)
    assert sorted(rig.payloads()) == []
    rig.now_ms += 60_000
    assert late_replica(rig, tmp_path / "late") == sorted(rig.payloads())


def test_replaying_asks_little(rig: IngestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each record: what is old enough further on in the topic says it of all before."""
    for number in range(60):
        rig.produce(upsert(number))
        rig.settle()
    rig.now_ms += 3_600_000
    asked = 0
    appended_ms: Callable[[claims.IngestClaims, TopicPartition, int], int] = claims.IngestClaims._appended_ms

    def counted(self: claims.IngestClaims, partition: TopicPartition, offset: int) -> int:
        nonlocal asked
        asked += 1
        return appended_ms(self, partition, offset)

    monkeypatch.setattr(claims.IngestClaims, "_appended_ms", counted)
    assert len(late_replica(rig, tmp_path / "late")) == 60
    assert asked == 1


def test_claims_of_ever_new_logs_do_not_grow_what_a_shard_remembers(tmp_path: Path) -> None:
    """I11: those that were used last are kept, so what is in use stays exactly once."""
    rig = Rig(tmp_path)
    for number in range(MAX_INGEST_LOGS + 50):
        for log in ("in use", f"log{number}"):
            rig.append(rig.record(Delete([encode_id(number)]), ingested=Ingested(log, [number])))
    (shard,) = rig.shards.of(0)
    known = shard.progress(HOME).ingested
    assert len(known) == MAX_INGEST_LOGS
    assert known["in use"] == MAX_INGEST_LOGS + 50
    rig.append(rig.record(upsert_of(1, 2), ingested=Ingested("in use", [0])))
    assert rig.ids() == []
    rig.replayer.close()
