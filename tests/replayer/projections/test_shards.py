"""I6: what cannot be applied, or not yet, holds up itself and nothing else."""

from __future__ import annotations

import pytest

from journal.ids import encode_id
from journal.log import TopicPartition
from journal.records import Delete, DeleteCollection
from journal.writer import Origin
from replayer.projections import shards as projection
from shard.batch import Limits
from shard.shard import Shard
from tests.replayer.projections.shard_records import GOOD, TIER0, TIER3
from tests.replayer.rig import HOME, NOW_MS, TOPICS, Rig, upsert


@pytest.mark.parametrize("value", ["poison", "claim"])
def test_poison_goes_to_the_dead_letters_and_stops_nothing(rig: Rig, value: str) -> None:
    poison = b"poison" if value == "poison" else rig.record(GOOD, catalog_position=5)
    reason = "framing" if value == "poison" else "catalog position 5"
    rig.journal.append(HOME, poison, b"key", [("from", b"test")]).result()
    rig.now_ms += Limits().max_lateness_ms + 1  # the claim cannot come true any more
    rig.replayer.step(0)
    rig.append(rig.record(upsert(3, 4, point_id=encode_id(2))))
    (letter,) = rig.dead_letters()
    headers = dict(letter.headers)
    assert letter.value == poison
    assert (letter.key, letter.time_ms) == (b"key", NOW_MS)
    assert headers["__connect.errors.topic"] == HOME.topic.encode()
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"2", b"0")
    assert reason in headers["__connect.errors.exception.message"].decode()
    assert headers["from"] == b"test"
    assert rig.ids() == [encode_id(2)], "the next record is applied, the poisoned one is not"
    assert rig.replayer.applied.get()[HOME] == 2
    assert rig.replayer.buried == 1


def test_points_in_the_system_topic(rig: Rig) -> None:
    rig.append(rig.record(GOOD), TOPICS.system_partition)
    assert len(rig.dead_letters()) == 1
    assert rig.replayer.catalog.view.position == 2


def test_records_of_a_deleted_collection_are_dropped_in_silence(rig: Rig) -> None:
    rig.writer.write_catalog(DeleteCollection("c"), Origin("delete")).result()
    rig.replayer.step(0)
    rig.append(rig.record(Delete([encode_id(1)])))
    assert not rig.dead_letters()
    assert [part.verdict for part in rig.replayer.operations.of("r")] == ["dropped"]


def test_a_restart_does_not_bury_again(rig: Rig) -> None:
    rig.append(b"poison")
    rig.append(b"poison", TOPICS.system_partition)
    assert len(rig.dead_letters()) == 2
    while rig.replayer.step(0):
        pass  # until it is idle, and commits
    rig.replayer.close()
    rig.replayer.open()
    while rig.replayer.step(0):
        pass
    assert len(rig.dead_letters()) == 2


def test_only_the_partition_of_a_record_that_waits_for_the_catalog_is_held_up(rig: Rig) -> None:
    rig.journal.append(HOME, rig.record(GOOD, collection=1, catalog_position=2)).result()
    for number in (2, 3):
        rig.journal.append(HOME, rig.record(upsert(1, 2, point_id=encode_id(number)))).result()
    rig.append(rig.record(upsert(1, 2, point_id=encode_id(4))), TIER0)
    assert rig.ids() == [encode_id(4)]
    assert (rig.replayer.applied.get()[HOME], rig.replayer.applied.get()[TIER0]) == (0, 1)
    rig.create("d")
    assert rig.replayer.step(0) == 1, "the command"
    assert rig.replayer.step(0) == 3, "what waited, and what came behind it"
    assert rig.ids() == [encode_id(2), encode_id(3), encode_id(4)]
    assert rig.ids(1) == [encode_id(1)]
    assert rig.replayer.applied.get()[HOME] == 3
    assert not rig.dead_letters()


def test_a_partition_may_wait_again_and_goes_on_where_it_waits(rig: Rig) -> None:
    """It is read again from the record that waits; what was applied before it is not applied twice."""
    claims = [(2, 1), (3, 2), (4, 3)]  # of a catalog position, and the collection that is created there
    for number, (position, collection) in enumerate(claims):
        record = upsert(1, 2, point_id=encode_id(number))
        rig.journal.append(HOME, rig.record(record, collection=collection, catalog_position=position)).result()
    rig.replayer.step(0)
    for number, name in enumerate("def"):
        assert rig.replayer.applied.get()[HOME] == number
        rig.create(name)
        while rig.replayer.step(0):
            pass
        assert rig.ids(number + 1) == [encode_id(number)]
    assert rig.replayer.applied.get()[HOME] == 3
    assert not rig.dead_letters()


def test_a_command_that_comes_too_late_makes_no_claim_true(rig: Rig) -> None:
    rig.append(rig.record(GOOD, collection=1, catalog_position=2))
    rig.now_ms += Limits().max_lateness_ms + 1
    rig.create("d")
    rig.replayer.step(0)
    rig.replayer.step(0)
    assert rig.ids(1) == []
    assert rig.replayer.applied.get()[HOME] == 1
    (letter,) = rig.dead_letters()
    assert b"catalog position 2 did not exist" in dict(letter.headers)["__connect.errors.exception.message"]


def test_a_loop_with_a_waiting_partition_looks_again_soon(rig: Rig) -> None:
    while rig.replayer.step(0):
        pass
    rig.append(rig.record(GOOD, catalog_position=2))
    assert rig.replayer._poll_timeout_s() == projection.WAIT_CHECK_S


def test_a_waiting_partition_still_waits_when_the_loop_reads_on(rig: Rig) -> None:
    rig.append(rig.record(GOOD, catalog_position=2))
    rig.replayer._resume()
    rig.append(rig.record(upsert(1, 2, point_id=encode_id(4))), TIER0)
    assert rig.ids() == [encode_id(4)]
    rig.append(b"poison", TOPICS.system_partition)
    rig.replayer.step(0)
    assert rig.ids() == [encode_id(1), encode_id(4)]


def test_the_first_tiers_go_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what one poll brings: what is urgent is applied and announced before the rest is even judged."""
    announced: list[set[TopicPartition]] = []
    apply = Shard.apply

    def apply_and_look(shard: Shard, records: list) -> object:  # type: ignore[type-arg]
        applied = rig.replayer.applied.get()
        announced.append({partition for partition in (TIER0, HOME, TIER3) if applied[partition]})
        return apply(shard, records)

    monkeypatch.setattr(Shard, "apply", apply_and_look)
    for partition in (TIER3, HOME, TIER0):
        rig.journal.append(partition, rig.record(GOOD)).result()
    rig.replayer.step(0)
    assert announced == [set(), {TIER0}, {TIER0, HOME}]
