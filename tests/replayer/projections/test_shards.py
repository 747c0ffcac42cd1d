"""I6 and the quarantine: what cannot be applied holds up itself and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.ids import encode_id
from journal.log import JournalError, TopicPartition
from journal.records import CreatePayloadIndex, Delete, DeleteCollection
from journal.writer import Origin
from replayer.projections import shards as projection
from replayer.projections.shards import FIRST_DELAY_S
from shard.batch import Limits
from shard.shard import Shard
from shard.shards import MAX_DELAY_S, ShardUnavailable
from shard.store import Changes, Store
from tests.replayer.rig import HOME, NOW_MS, TOPICS, Rig, upsert

GOOD = upsert(1, 2)
TIER0 = TopicPartition(TOPICS.tier(0), 0)
TIER3 = TopicPartition(TOPICS.tier(3), 0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.replayer.close()


# Refused records.


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


# Waiting for the catalog.


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


# Tiers.


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


# Quarantine.


class Broken:
    """Makes one shard fail at its writes to RocksDB, when it is opened, or when it is configured, until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, collection: int, number: int, at: str = "write") -> None:
        self.at = at
        write, configure = Store.write, Shard.configure
        mine = (str(collection), str(number))

        def break_at(what: str, folder: Path) -> None:
            if self.at == what and folder.parts[-2:] == mine:
                raise RuntimeError("IO error: the disk is gone")

        def write_or_fail(store: Store, changes: Changes) -> None:
            break_at("write", store._path.parent)
            write(store, changes)

        def configure_or_fail(shard: Shard, collection: object) -> None:
            break_at("open" if shard._view is None else "configure", shard._folder)
            configure(shard, collection)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "write", write_or_fail)
        monkeypatch.setattr(Shard, "configure", configure_or_fail)

    def mend(self) -> None:
        self.at = ""


def unavailable(rig: Rig, collection: int) -> str:
    with pytest.raises(ShardUnavailable) as refusal:
        rig.shards.of(collection)
    return str(refusal.value)


def served_again(rig: Rig, collection: int = 0) -> bool:
    """Whether a few steps, once the longest delay is over, bring the collection back."""
    rig.now_ms += int(MAX_DELAY_S * 1000)
    for _ in range(5):
        rig.replayer.step(0)
    return not any(key[0] == collection for key in rig.shards.quarantined())


def test_a_failing_shard_is_quarantined_alone_and_comes_back_with_all_that_it_missed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.create("d")
    rig.replayer.step(0)
    rig.append(rig.record(GOOD))
    broken = Broken(monkeypatch, 0, 0)
    for number in (2, 3):
        rig.append(rig.record(upsert(1, 2, point_id=encode_id(number))))
        rig.append(rig.record(upsert(1, 2, point_id=encode_id(number)), collection=1, catalog_position=2))
    rig.append(rig.record(Delete([encode_id(1)])), TIER0)
    assert unavailable(rig, 0) == (
        "shard 0 of collection 'c' is not served: RuntimeError: IO error: the disk is gone; it is tried again within 1 s"
    )
    assert rig.ids(1) == [encode_id(2), encode_id(3)], "the other collection goes on"
    assert rig.replayer.applied.get()[HOME] == 5
    assert [part.verdict for part in rig.replayer.operations.of("r")] == ["applied", "applied", "applied"]
    broken.mend()
    rig.now_ms += 1000
    rig.replayer.step(0)
    assert rig.ids() == [encode_id(2), encode_id(3)]
    rig.append(rig.record(GOOD))
    assert rig.ids() == [encode_id(1), encode_id(2), encode_id(3)]


def test_poison_is_not_buried_again_for_a_shard_that_catches_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(monkeypatch, 0, 0)
    rig.append(rig.record(GOOD))
    rig.append(b"poison")
    rig.append(rig.record(GOOD, catalog_position=9))
    rig.now_ms += Limits().max_lateness_ms + 1
    rig.replayer.step(0)
    rig.replayer.step(0)
    assert len(rig.dead_letters()) == 2
    broken.mend()
    assert served_again(rig)
    assert rig.ids() == [encode_id(1)]
    assert len(rig.dead_letters()) == 2


def test_the_delay_grows_to_a_bound_and_starts_anew_once_served(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(monkeypatch, 0, 0)
    rig.append(rig.record(GOOD))
    delays: list[float] = []
    for _ in range(9):
        delays.append(rig.shards.quarantined()[0, 0].delay_s)
        rig.now_ms += int(delays[-1] * 1000) - 1
        rig.replayer.step(0)
        assert rig.shards.quarantined()[0, 0].failures == len(delays), "not before the delay is over"
        rig.now_ms += 2
        rig.replayer.step(0)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    broken.mend()
    assert served_again(rig)
    broken.at = "write"
    rig.append(rig.record(GOOD))
    assert rig.shards.quarantined()[0, 0].delay_s == FIRST_DELAY_S


def test_one_of_two_shards_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one goes on in the same partitions, and the collection is whole again afterwards."""
    rig.create("two", [0, 2, 0, 0], [0, 2, 0, 0])
    rig.replayer.step(0)
    broken = Broken(monkeypatch, 1, 1)
    shards = {number: rig.shards.of(1)[number] for number in (0, 1)}

    def write(number: int) -> None:
        for shard in shards:  # one of the two is its home, the other a dead letter
            rig.append(rig.record(upsert(1, 2, point_id=encode_id(number)), collection=1, catalog_position=2, shard=shard))

    for number in range(8):
        write(number)
    assert list(rig.shards.quarantined()) == [(1, 1)]
    assert 0 < len(rig.shards.served(1)[0].view.alive) < 8
    broken.mend()
    assert served_again(rig, 1)
    assert rig.ids(1) == [encode_id(number) for number in range(8)]


@pytest.mark.parametrize("at", ["open", "write"])
def test_a_shard_that_cannot_be_opened_at_first(rig: Rig, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """The records that came meanwhile are read for it alone; its collection can be dropped as well."""
    broken = Broken(monkeypatch, 1, 0, at)
    for name in ("d", "e"):
        rig.create(name)
    rig.replayer.step(0)
    for collection in (0, 1, 2):
        rig.append(rig.record(GOOD, collection=collection, catalog_position=3))
    assert "the disk is gone" in unavailable(rig, 1)
    assert rig.ids(0) == rig.ids(2) == [encode_id(1)]
    broken.mend()
    assert served_again(rig, 1)
    assert rig.ids(1) == [encode_id(1)]


def test_a_shard_that_cannot_be_configured(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(monkeypatch, 0, 0, "configure")
    rig.writer.write_catalog(CreatePayloadIndex("c", "n", b'{"type":"integer"}'), Origin("index")).result()
    rig.append(rig.record(upsert(1, 2, payload=b'{"n":1}')))
    unavailable(rig, 0)
    broken.mend()
    assert served_again(rig)
    assert rig.shards.of(0)[0].payload.points("n") == 1


def test_a_restart_finds_a_broken_shard_and_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.create("d")
    rig.append(rig.record(GOOD))
    rig.append(rig.record(GOOD, collection=1, catalog_position=2))
    broken = Broken(monkeypatch, 0, 0, "open")
    rig.replayer.close()
    rig.replayer.open()
    while rig.replayer.step(0):
        pass
    unavailable(rig, 0)
    assert rig.ids(1) == [encode_id(1)]
    assert rig.replayer.caught_up()
    broken.mend()
    assert served_again(rig)
    assert rig.ids() == [encode_id(1)]


def test_a_collection_in_quarantine_can_be_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    Broken(monkeypatch, 0, 0)
    rig.append(rig.record(GOOD))
    rig.writer.write_catalog(DeleteCollection("c"), Origin("delete")).result()
    rig.replayer.step(0)
    assert (rig.shards.of(0), rig.shards.quarantined()) == ([], {})
    assert served_again(rig), "nothing is tried again"


def test_a_long_way_behind_is_read_in_small_steps_while_the_rest_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard is not served before it has all, and what is new meanwhile comes to it as well, once."""
    monkeypatch.setattr(projection, "CATCH_UP_RECORDS", 2)
    rig.create("d")
    rig.replayer.step(0)
    broken = Broken(monkeypatch, 0, 0)
    for number in range(20):
        rig.append(rig.record(upsert(1, 2, point_id=encode_id(number))), TIER3 if number % 3 else HOME)
    broken.mend()
    rig.now_ms += 1000
    steps = 0
    while rig.shards.quarantined():
        other = upsert(1, 2, point_id=encode_id(100 + steps))
        rig.append(rig.record(other, collection=1, catalog_position=2))
        rig.append(rig.record(other), (HOME, TIER0, TIER3)[steps % 3])
        assert rig.ids(1)[-1] == encode_id(100 + steps)
        steps += 1
        assert steps < 40
    assert steps > 1
    assert rig.ids() == [*(encode_id(number) for number in range(20)), *(encode_id(100 + step) for step in range(steps))]


def test_a_shard_that_catches_up_takes_new_settings_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "CATCH_UP_RECORDS", 1)
    broken = Broken(monkeypatch, 0, 0)
    for number in range(4):
        rig.append(rig.record(upsert(1, 2, point_id=encode_id(number), payload=b'{"n":1}')))
    broken.mend()
    rig.now_ms += 1000
    rig.replayer.step(0)
    assert rig.shards.quarantined()
    rig.writer.write_catalog(CreatePayloadIndex("c", "n", b'{"type":"integer"}'), Origin("index")).result()
    for _ in range(10):
        rig.replayer.step(0)
    assert rig.shards.of(0)[0].payload.points("n") == 4


def test_a_journal_that_fails_while_a_shard_catches_up_is_no_fault_of_the_shard(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(monkeypatch, 0, 0)
    rig.append(rig.record(GOOD))
    broken.mend()

    def fail(*_: object) -> None:
        raise JournalError("the broker is gone")

    with monkeypatch.context() as gone:
        gone.setattr(projection._CatchUp, "read", fail)
        rig.now_ms += 1000
        rig.replayer.step(0)
    assert rig.shards.quarantined()[0, 0].failures == 1
    rig.now_ms += 1000
    rig.replayer.step(0)
    assert rig.ids() == [encode_id(1)]
