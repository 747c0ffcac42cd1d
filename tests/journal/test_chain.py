"""N12: the hash chain of a partition depends on all of every record, and on nothing else."""

from __future__ import annotations

import random
from hashlib import blake2b

import pytest

from journal.chain import EVERY, Head, begin, extended, link
from journal.log import Entry, TopicPartition

ONE = TopicPartition("t", 0)
ENTRY = Entry(ONE, 7, 1_700_000_000_000, b"key", b"value", (("name", b"\x00"), ("name", b"")))


def entries(offsets: range) -> list[Entry]:
    return [Entry(ONE, offset, offset, None, b"%d" % offset, ()) for offset in offsets]


def last(head: Head, found: list[Entry], position: int) -> Head:
    return list(extended(head, found, position))[-1]


def test_the_form_of_a_link_is_that_of_the_documentation() -> None:
    """Checkpoints that were noted once must be understood for ever: BLAKE2b-256 of the digest before and a msgpack array."""
    array = b"\x97" + b"\xa1t" + b"\x00" + b"\x07" + b"\xcf" + (1_700_000_000_000).to_bytes(8, "big")
    array += b"\xc4\x03key" + b"\xc4\x05value" + b"\x92" + b"\x92\xa4name\xc4\x01\x00" + b"\x92\xa4name\xc4\x00"
    before = bytes(range(32))
    assert link(before, ENTRY) == blake2b(before + array, digest_size=32).digest()
    assert begin(ONE, 0).digest == blake2b(b"vecraft chain 1" + b"\x93\xa1t\x00\x00", digest_size=32).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"partition": TopicPartition("t", 1)},
        {"partition": TopicPartition("u", 0)},
        {"offset": 8},
        {"time_ms": 1_700_000_000_001},
        {"key": b"kez"},
        {"key": None},
        {"key": b""},
        {"value": b"valuf"},
        {"headers": (("name", b"\x00"),)},
        {"headers": (("name", b""), ("name", b"\x00"))},
        {"headers": (("names", b"\x00"), ("name", b""))},
        {"key": b"keyv", "value": b"alue"},
    ],
    ids=str,
)
def test_every_part_of_a_record_counts(changes: dict[str, object]) -> None:
    before = begin(ONE, 0).digest
    assert link(before, ENTRY._replace(**changes)) != link(before, ENTRY)
    assert link(begin(ONE, 1).digest, ENTRY) != link(before, ENTRY)


def test_heads_stand_at_the_multiples_however_the_log_is_read() -> None:
    """So that what two nodes note can be compared."""
    every = entries(range(2 * EVERY + 500))
    whole = list(extended(begin(ONE, 0), every, len(every)))
    assert [head.offset for head in whole] == [EVERY, 2 * EVERY, len(every)]
    assert [head.records for head in whole] == [EVERY, 2 * EVERY, len(every)]
    rng = random.Random(1)
    head, noted, at = begin(ONE, 0), [], 0
    while at < len(every):
        step = min(len(every), at + rng.randint(1, 300))
        *passed, head = extended(head, every[at:step], step)
        noted += [each for each in [*passed, head] if each.offset % EVERY == 0]
        at = step
    assert [*noted, head] == whole


def test_what_takes_an_offset_without_a_record_is_passed_over() -> None:
    """As the markers of Kafka's transactions."""
    some = [*entries(range(10)), *entries(range(EVERY + 3, EVERY + 5))]
    *noted, end = extended(begin(ONE, 0), some, 3 * EVERY + 1)
    assert [(head.offset, head.records) for head in noted] == [(EVERY, 10), (3 * EVERY, 12)]
    assert (end.offset, end.records, end.digest) == (3 * EVERY + 1, 12, noted[-1].digest)
    assert last(begin(ONE, 0), some[:10], EVERY) == noted[0]
