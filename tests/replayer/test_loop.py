"""The loop is the same for any set of projections, and says honestly what is applied while they open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.log import Positions, TopicPartition, pending
from journal.memory import MemoryJournal
from journal.records import DeleteCollection
from journal.writer import Origin
from replayer.loop import Loop
from replayer.operations import Operations
from replayer.projections import dead_letters
from replayer.projections.catalog import CatalogProjection
from replayer.refusals import Refusals
from shard.batch import Limits
from shard.shards import AppliedPositions, Shards
from tests.replayer.rig import HOME, TOPICS, Rig, upsert


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.replayer.close()


def test_the_catalog_can_be_followed_without_replaying_shards(rig: Rig) -> None:
    """As a process does that only leads requests to others: it reads the system topic, and nothing else."""
    stopping, operations = threading.Event(), Operations()
    refusals = Refusals(rig.journal, TOPICS, operations, lambda: rig.now_ms, lambda: None)
    catalog = CatalogProjection(rig.journal, TOPICS, Limits(), operations, refusals, stopping)
    specs = {TOPICS.system: TOPICS.all()[TOPICS.system]}
    loop = Loop(rig.journal, specs, "gateway", [catalog], AppliedPositions(), stopping, lambda: rig.now_ms / 1000)
    loop.open()
    assert list(catalog.catalog.view.collections) == ["c"], "what was there when it opened"
    rig.append(rig.record(upsert(1, 2)))
    rig.create("d")
    rig.writer.write_catalog(DeleteCollection("c"), Origin("delete")).result()
    assert loop.step(0) == 2
    assert list(catalog.catalog.view.collections) == ["d"]
    assert loop.applied.get() == {TOPICS.system_partition: 3}
    assert loop.caught_up()
    loop.close()


def test_while_state_is_opened_nothing_is_applied_and_the_catalog_of_before_stays(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a false "there is no such collection", nor a read of shards that are not all there."""
    rig.append(rig.record(upsert(1, 2)))
    ends = rig.replayer.applied.get()
    seen: list[tuple[Positions, bool, list[str]]] = []

    def look() -> None:
        replayer = rig.replayer
        covered = replayer.applied.covers(ends) or replayer.applied.covers({})
        seen.append((replayer.applied.get(), covered, list(replayer.catalog.view.collections)))

    read, open_shards = CatalogProjection._fold, Shards.open
    monkeypatch.setattr(CatalogProjection, "_fold", lambda *args: (look(), read(*args))[1])
    monkeypatch.setattr(Shards, "open", lambda *args: (open_shards(*args), look())[0])
    rig.replayer.close()
    assert not rig.replayer.caught_up()
    rig.replayer.open()
    assert seen == [({}, False, ["c"])] * 2
    assert rig.replayer.applied.covers(ends)


def test_a_dead_letter_that_is_not_acknowledged_in_time_is_a_failure_of_the_journal(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads on; the shards stay open, and nothing is lost."""
    monkeypatch.setattr(dead_letters, "BURY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(rig.replayer._stopping, "wait", lambda _: None)
    append, slow = MemoryJournal.append, [True]

    def append_slowly(journal: MemoryJournal, partition: TopicPartition, *args: object, **more: object) -> object:
        if partition == TOPICS.dead_letter_partition and slow.pop():
            slow.append(False)
            return pending()
        return append(journal, partition, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryJournal, "append", append_slowly)
    opened: list[int] = []
    rig.replayer.close()
    monkeypatch.setattr(rig.replayer, "open", lambda: (opened.append(1), Loop.open(rig.replayer))[0])
    step = rig.replayer.step

    def step_until_applied(timeout_s: float) -> int:
        count = step(0)
        if rig.replayer.applied.get()[HOME] == 2:
            rig.replayer.stop()
        return count

    monkeypatch.setattr(rig.replayer, "step", step_until_applied)
    rig.journal.append(HOME, b"poison").result()
    rig.journal.append(HOME, rig.record(upsert(1, 2))).result()
    rig.replayer.run()
    assert opened == [1], "only once"
    assert len(rig.dead_letters()) == 1


def test_a_marker_moves_a_position_without_an_entry(rig: Rig) -> None:
    reader = rig.replayer._reader
    assert reader is not None
    poll = reader.poll
    reader.poll = lambda *bounds, **named: poll(*bounds, **named)._replace(positions={HOME: 7})  # type: ignore[method-assign]
    rig.replayer.step(0)
    assert rig.replayer.applied.get()[HOME] == 7
