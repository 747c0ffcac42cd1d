"""The writer when a write fails: honest answers."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest

from journal.hlc import millis_of, stamp_at
from journal.log import Definite, Indefinite, JournalError
from journal.memory import AppendFault
from journal.records import Delete, UpdateCollection, Upsert
from journal.writer import Destination, Receipt, Writer
from tests.journal.writer.written import DESTINATION, EVERYWHERE, NOW_MS, ORIGIN, World, ids_of

REFUSED, LOST, FINE = AppendFault.REFUSED, AppendFault.ACK_LOST, None


@pytest.mark.parametrize(
    ("faults", "error", "written"),
    [
        ([REFUSED, REFUSED, REFUSED], Definite, 0),
        ([LOST, LOST, LOST], Indefinite, 3),
        ([FINE, REFUSED, REFUSED], Indefinite, 1),
        ([REFUSED, LOST, REFUSED], Indefinite, 1),
        ([FINE, FINE, LOST], Indefinite, 3),
    ],
    ids=["all refused", "all in doubt", "one written", "one in doubt", "one unconfirmed"],
)
def test_a_failure_says_whether_anything_may_have_been_written(
    world: World, faults: Sequence[AppendFault | None], error: type[JournalError], written: int
) -> None:
    """I2"""
    world.faults = iter(faults)
    with pytest.raises(JournalError) as raised:
        world.write(EVERYWHERE)
    assert isinstance(raised.value, error)
    assert len(world.log()) == written


def test_a_write_to_where_no_partition_is_fails_as_definite(world: World) -> None:
    """I2"""
    nowhere = Destination("", 1, 1, [[99, 99, 99, 99]])
    with pytest.raises(Definite):
        world.writer.write_points(nowhere, [EVERYWHERE], 0, ORIGIN).result(0)


def test_nothing_is_written_when_a_single_point_does_not_fit(world: World) -> None:
    """I2, I11: not even the points that do."""
    with pytest.raises(Definite):
        world.write(Upsert([*ids_of(0), *ids_of(1)], [], [b"", bytes(900_001)]))
    assert world.log() == []


def test_a_write_stamped_too_far_ahead_of_the_log_is_refused(world: World) -> None:
    """V14, I6: the record is in the log, but no replica will apply it, so its writer must not say that it holds."""
    world.node_ms = NOW_MS + 501
    with pytest.raises(Definite, match="clock"):
        world.write(Delete(ids_of(0)))
    ((entry, record),) = world.log()
    assert millis_of(record.hlc) - entry.time_ms == 501
    world.log_ms += 1
    assert world.write(Delete(ids_of(0))).written, "within the bound it holds"


def test_a_request_whose_parts_differ_in_fate_is_in_doubt(world: World) -> None:
    """V14, I2: one part too far ahead, the others in time."""
    world.node_ms = NOW_MS + 501

    def catch_up() -> Iterator[AppendFault | None]:
        yield FINE
        world.log_ms += 1
        yield FINE

    world.faults = catch_up()
    with pytest.raises(Indefinite):
        world.write(EVERYWHERE)


def test_a_clock_that_cannot_stamp_every_part_writes_none(world: World) -> None:
    """V14, I2: a half-stamped request would be half written."""
    world.clock.observe(stamp_at(NOW_MS + 500, 2**16 - 2))
    with pytest.raises(Definite):
        world.writer.write_points(DESTINATION, [EVERYWHERE], 2, ORIGIN)
    assert world.log() == []


@pytest.mark.parametrize(
    "write",
    [
        lambda writer: writer.write_points(DESTINATION, [EVERYWHERE], 0, ORIGIN),
        lambda writer: writer.write_catalog(UpdateCollection("docs", b"{}"), ORIGIN),
    ],
    ids=["points", "catalog"],
)
def test_a_closed_journal_is_a_definite_failure(world: World, write: Callable[[Writer], Future[Receipt]]) -> None:
    """I2"""
    world.journal.close()
    with pytest.raises(Definite):
        write(world.writer).result(0)
