"""What became of recent requests: the latest of them, within bounds (V3, I11)."""

from __future__ import annotations

import pytest

from journal.log import TopicPartition
from replayer import operations
from replayer.operations import AppliedRecord, Operations

PARTITION = TopicPartition("vecraft.tier1", 0)


def applied(offset: int) -> AppliedRecord:
    return AppliedRecord(PARTITION, offset, 0, 0, "Upsert", 1, 1, "applied")


def test_a_request_is_remembered_with_each_record_once() -> None:
    """V3"""
    found = Operations()
    for offset in (2, 1, 2):
        found.note("r", applied(offset))
    assert found.of("r") == [applied(1), applied(2)]
    assert found.of("another") == []


def test_the_oldest_requests_leave_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """I11"""
    monkeypatch.setattr(operations, "MAX_REQUESTS", 3)
    found = Operations()
    for number in range(5):
        found.note(f"r{number}", applied(number))
    assert [len(found.of(f"r{number}")) for number in range(5)] == [0, 0, 1, 1, 1]


def test_the_oldest_requests_leave_when_they_have_too_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: a bulk write has many records, so the number of requests alone bounds nothing."""
    monkeypatch.setattr(operations, "MAX_RECORDS", 4)
    monkeypatch.setattr(operations, "MAX_ALL_RECORDS", 10)
    found = Operations()
    for number in range(5):
        for offset in range(8):
            found.note(f"r{number}", applied(offset))
            found.note(f"r{number}", applied(offset))
    assert [len(found.of(f"r{number}")) for number in range(5)] == [0, 0, 0, 4, 4]
