"""Claims of source offsets that are not there (I6, U2): the records that come next must not vanish, and all replicas agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, Ingested
from journal.topics import shard_of
from query import points
from replayer.ingest import claims
from replayer.ingest.claims import IngestClaims
from shard.batch import MAX_INGEST_LOGS, Limits
from shard.shards import Shards
from tests.reading import now, pinned
from tests.replayer.ingest.ingest_rig import SHARDS, IngestRig
from tests.replayer.rig import HOME, TOPICS, Rig, replayer_on
from tests.replayer.rig import upsert as upsert_of

TIER2 = [TopicPartition(TOPICS.tier(2), homes[2]) for homes in SHARDS]


def upsert(number: int) -> dict[str, object]:
    return {"collection": "d", "id": number, "vector": [1, number], "payload": {"n": number}}


def forge(rig: IngestRig, number: int, offset: int, log: str = f"{TOPICS.ingest}/0") -> None:
    """A record straight into the tier that claims to come from an offset of the ingest topic."""
    shard = shard_of(encode_id(number), len(SHARDS))
    ingested = Ingested(log, [offset])
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


def make_anew(rig: IngestRig) -> str:
    """Deletes the ingest topic and creates it again, under the running replica; gives its identity."""
    for partition in rig.journal.partitions(TOPICS.ingest):
        rig.journal._logs[partition].clear()
        rig.journal.commit(rig.ingest.group, {partition: 0})
    identity = f"{TOPICS.ingest}:anew"
    rig.journal.identities = lambda topics: {  # type: ignore[method-assign]
        topic: identity if topic == TOPICS.ingest else topic for topic in topics
    }
    return identity


def test_a_topic_made_anew_under_a_running_replica_is_checked(rig: IngestRig) -> None:
    """Its good records would vanish, as those of the former one."""
    rig.produce(upsert(1))
    rig.settle()
    identity = make_anew(rig)
    forge(rig, 1, 2**40, f"{identity}/0")
    assert [b"did not exist" in value for entry in rig.dead_letters() for _, value in entry.headers].count(True) == 1
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.produce(upsert(2))
    rig.settle()
    assert sorted(rig.payloads()) == [encode_id(1), encode_id(2)]


def test_a_record_of_a_former_topic_is_not_held_against_the_new_one(rig: IngestRig) -> None:
    """It was made from what the former one held, and is late: the new one is empty."""
    for number in range(3):
        rig.produce(upsert(number))
    rig.settle()
    make_anew(rig)
    forge(rig, 1, 7)
    rig.replayer.step(0)
    assert rig.dead_letters() == []
    assert sorted(rig.payloads()) == [encode_id(0), encode_id(2)], "it was applied"
    asked = 0
    identities = rig.journal.identities

    def counted(topics: Sequence[str]) -> dict[str, str]:
        nonlocal asked
        asked += 1
        return identities(topics)

    rig.now_ms += Limits().max_lateness_ms + 1
    rig.journal.identities = counted  # type: ignore[method-assign]
    checks = IngestClaims(rig.journal, TOPICS, lambda: rig.now_ms, Limits().max_lateness_ms)
    old = Entry(TIER2[0], 0, rig.now_ms - Limits().max_lateness_ms - 1, None, b"", ())
    assert {checks.check(old, Ingested(f"{TOPICS.ingest}/0", [offset])) for offset in range(50)} == {claims.Claim.TRUE}
    assert asked == 1, "a replay asks once for each former topic"


def test_partitions_that_are_added_are_checked(rig: IngestRig) -> None:
    """And what names one that is not there is refused once it is late."""
    rig.produce(upsert(1))
    rig.settle()
    forge(rig, 1, 4, f"{TOPICS.ingest}/6")
    assert (rig.dead_letters(), sorted(rig.payloads())) == ([], [encode_id(1)]), "it waits"
    rig.now_ms += Limits().max_lateness_ms + 1
    rig.replayer.step(0)
    rig.replayer.step(0)
    assert len(rig.dead_letters()) == 1
    rig.journal._logs[TopicPartition(TOPICS.ingest, 7)] = []
    forge(rig, 1, 2**40, f"{TOPICS.ingest}/7")
    assert len(rig.dead_letters()) == 2


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
