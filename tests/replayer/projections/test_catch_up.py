"""How a shard catches up that was in quarantine."""

from __future__ import annotations

import pytest

from journal.ids import encode_id
from journal.log import JournalError
from journal.records import CreatePayloadIndex
from journal.writer import Origin
from replayer.projections import shards as projection
from shard.batch import Limits
from tests.replayer.projections.broken_shard import Broken, served_again
from tests.replayer.projections.shard_records import GOOD, TIER0, TIER3
from tests.replayer.rig import HOME, Rig, upsert


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
