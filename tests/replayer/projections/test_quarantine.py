"""The quarantine: a shard that fails holds up itself and nothing else, and comes back (I6)."""

from __future__ import annotations

import pytest

from journal.ids import encode_id
from journal.records import CreatePayloadIndex, Delete, DeleteCollection
from journal.writer import Origin
from replayer.projections.shards import FIRST_DELAY_S
from tests.replayer.projections.broken_shard import Broken, served_again, unavailable
from tests.replayer.projections.shard_records import GOOD, TIER0
from tests.replayer.rig import HOME, Rig, upsert


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
