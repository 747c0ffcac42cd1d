"""A3: the list of dead letters, as every node folds it from the topic."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest

from catalog.collection import MAX_NAME_CHARS
from journal.log import Entry, Indefinite, TopicPartition, pending
from journal.memory import MemoryJournal
from journal.topics import Topics
from replayer.projections import dead_letters
from replayer.projections.dead_letters import (
    MAX_WHOLE_BYTES,
    MIN_TRIM,
    TOTAL_FACTOR,
    Burial,
    DeadLetters,
    DeadLettersProjection,
    bury,
    original,
    remove,
)

TOPICS = Topics("v")
KNOWN = ("c", "few", "many")
FROM = TopicPartition(TOPICS.ingest, 3)


class Cemetery:
    """A journal with dead letters in it, and lists that read it."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.journal = MemoryJournal(lambda: self.now_ms)
        self.journal.ensure_topics(TOPICS.all())

    def bury(self, offset: int, collection: str = "c") -> None:
        entry = Entry(FROM, offset, 500, b"key", b"value %d" % offset, (("ce_id", b"1"), ("__connect.errors.topic", b"older")))
        bury(self.journal, TOPICS, [Burial(entry, "because", collection)], self.now_ms)

    def entries(self) -> list[Entry]:
        reader = self.journal.reader()
        reader.assign({TOPICS.dead_letter_partition: 0})
        return reader.poll(0).entries

    def folded(self, most: int = 1000, keep_ms: int = 1000) -> DeadLetters:
        letters = DeadLetters(most, keep_ms)
        for entry in self.entries():
            letters.apply(entry, KNOWN)
        return letters


def test_a_letter_is_the_record_as_it_was_and_says_where_it_came_from() -> None:
    cemetery = Cemetery()
    cemetery.bury(7)
    (entry,) = cemetery.entries()
    headers = dict(entry.headers)
    assert (entry.key, entry.value, entry.time_ms, headers["ce_id"]) == (b"key", b"value 7", 500, b"1")
    names = ("topic", "partition", "offset", "exception.message")
    assert [headers[f"__connect.errors.{name}"] for name in names] == [b"v.ingest", b"3", b"7", b"because"]
    (letter,) = cemetery.folded().list()
    assert (letter.origin, letter.offset, letter.collection, letter.reason) == (FROM, 7, "c", "because")
    assert original(entry, letter) == Entry(FROM, 7, 500, b"key", b"value 7", (("ce_id", b"1"),))


def test_copies_of_several_replicas_are_one_letter_also_when_it_has_left() -> None:
    cemetery = Cemetery()
    cemetery.bury(1)
    cemetery.bury(1)
    assert len(cemetery.folded().list()) == 1
    remove(cemetery.journal, TOPICS, cemetery.folded().list(), "cleared", cemetery.now_ms)
    cemetery.bury(1)
    assert cemetery.folded().list() == []
    assert cemetery.folded().sizes(["c"]) == {"": 0, "c": 0}


def test_the_oldest_of_a_collection_leave() -> None:
    cemetery = Cemetery()
    for offset in range(5):
        cemetery.bury(offset, "few" if offset == 0 else "many")
    letters = cemetery.folded(most=2)
    assert [(letter.collection, letter.offset) for letter in letters.list()] == [("few", 0), ("many", 3), ("many", 4)]
    assert (letters.evictions, letters.sizes(KNOWN)) == ({"many": 2}, {"": 0, "c": 0, "few": 1, "many": 2})
    assert letters.first() == 0


def test_letters_leave_when_they_are_old() -> None:
    cemetery = Cemetery()
    cemetery.bury(1)
    cemetery.now_ms += 900
    cemetery.bury(2)
    letters = cemetery.folded()
    letters.expire(cemetery.now_ms + 99, KNOWN)
    assert len(letters.list()) == 2
    letters.expire(cemetery.now_ms + 100, KNOWN)
    assert [letter.offset for letter in letters.list("c")] == [2]
    assert letters.expirations == {"c": 1}


def test_whatever_else_stands_in_the_topic_is_passed_over() -> None:
    """I6: any producer can write there, too."""
    cemetery = Cemetery()
    for headers in ((), (("vecraft-dead-letter-mark", b"x"),), (("__connect.errors.topic", b"\xff"),)):
        cemetery.journal.append(TOPICS.dead_letter_partition, b"{}", None, headers).result()
    cemetery.bury(1)
    assert len(cemetery.folded().list()) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda cemetery: cemetery.bury(1),
        lambda cemetery: remove(cemetery.journal, TOPICS, [], "cleared", cemetery.now_ms),
    ],
)
def test_an_append_that_takes_too_long_is_indefinite(
    write: Callable[[Cemetery], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the journal as others are: not one that throws state away, and 504 over HTTP."""
    monkeypatch.setattr(dead_letters, "BURY_TIMEOUT_S", 0.0)
    cemetery = Cemetery()
    monkeypatch.setattr(cemetery.journal, "append", lambda *_, **__: pending())
    with pytest.raises(Indefinite, match="no acknowledgement within 0 s"):
        write(cemetery)


def test_names_that_producers_choose_take_no_room_of_their_own() -> None:
    """I11: the list is bounded in all, and what it counts by name are collections that exist."""
    cemetery = Cemetery()
    for offset in range(3 * TOTAL_FACTOR):
        cemetery.bury(offset, f"made up {offset}")
    letters = cemetery.folded(most=2)
    assert [letter.offset for letter in letters.list()] == list(range(TOTAL_FACTOR, 3 * TOTAL_FACTOR)), "the oldest leave"
    assert letters.evictions == {"": TOTAL_FACTOR}
    assert letters.sizes(KNOWN) == {"": 2 * TOTAL_FACTOR, "c": 0, "few": 0, "many": 0}
    letters.expire(cemetery.now_ms + 1000, KNOWN)
    assert letters.expirations == {"": 2 * TOTAL_FACTOR}
    assert not letters._by_collection


def test_counters_have_a_bound_also_for_collections_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_COUNTED_NAMES", 1)
    cemetery = Cemetery()
    for offset in range(6):
        cemetery.bury(offset, ("c", "few")[offset % 2])
    assert cemetery.folded(most=1).evictions == {"c": 2, "": 2}


def test_texts_of_producers_are_cut() -> None:
    cemetery = Cemetery()
    entry = Entry(FROM, 1, 500, None, b"", ())
    bury(cemetery.journal, TOPICS, [Burial(entry, "é" * 1_000_000, "ü" * 1_000_000)], cemetery.now_ms)
    (buried,) = cemetery.entries()
    assert sum(len(value) for _, value in buried.headers) < 3_000
    (letter,) = cemetery.folded().list()
    assert (len(letter.reason), len(letter.collection)) == (dead_letters.MAX_REASON_CHARS, MAX_NAME_CHARS)


@pytest.mark.parametrize("header", ["topic", "partition", "offset"])
def test_a_forged_letter_is_none_when_it_cannot_be_shown(header: str) -> None:
    cemetery = Cemetery()
    cemetery.bury(1)
    (entry,) = cemetery.entries()
    headers = [(name, b"9" * 1000 if name.endswith(f".{header}") else value) for name, value in entry.headers]
    cemetery.journal.append(TOPICS.dead_letter_partition, b"", None, headers).result()
    assert [letter.number for letter in cemetery.folded().list()] == [0]


@pytest.mark.parametrize(
    ("value", "key", "headers"),
    [
        (bytes(1_048_500), b"k", ()),
        (bytes(950_000), bytes(80_000), ()),
        (b"v", b"k" * 1_000_000, ()),
        (b"v", None, (("h", bytes(1_000_000)), ("late", b"1"))),
        (b"v", None, tuple((f"h{n}", bytes(1000)) for n in range(1000))),
    ],
)
def test_what_is_buried_always_fits(value: bytes, key: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> None:
    """I6: a record that only just fitted into its topic would not fit with its reason. A digest and a part of it are kept."""
    cemetery = Cemetery()
    bury(cemetery.journal, TOPICS, [Burial(Entry(FROM, 1, 5, key, value, headers), "r" * 5_000, "c" * 5_000)], cemetery.now_ms)
    (entry,) = cemetery.entries()
    size = len(entry.value) + len(entry.key or b"") + sum(len(name) + len(data) for name, data in entry.headers)
    assert size < MAX_WHOLE_BYTES
    assert value.startswith(entry.value)
    assert dict(entry.headers)["vecraft-dead-letter-sha256"] == sha256(value).hexdigest().encode()
    (letter,) = cemetery.folded().list()
    assert (letter.offset, letter.whole_bytes) == (1, len(value))


def test_cleared_letters_do_not_come_back_after_a_trim_or_from_a_new_node() -> None:
    """A3: a node without state replays, and buries, everything that was ever refused."""
    cemetery = Cemetery()
    for offset in range(MIN_TRIM + 5):
        cemetery.bury(offset)
    letters = cemetery.folded()
    remove(cemetery.journal, TOPICS, letters.list()[:-1], "cleared", cemetery.now_ms)
    partition = TOPICS.dead_letter_partition
    projection = DeadLettersProjection(cemetery.journal, TOPICS, cemetery.folded(), lambda: KNOWN, lambda: cemetery.now_ms)
    projection.before_commit(cemetery.journal.end_offsets([partition]))
    assert cemetery.journal.start_offsets([partition])[partition] == MIN_TRIM + 4
    for offset in range(MIN_TRIM + 5):
        cemetery.bury(offset)
    cemetery.bury(MIN_TRIM + 9)
    fresh = DeadLetters(1000, 1000)
    reader = cemetery.journal.reader()
    reader.assign({partition: MIN_TRIM + 4})
    for entry in reader.poll(0).entries:
        fresh.apply(entry, KNOWN)
    assert [letter.offset for letter in fresh.list()] == [MIN_TRIM + 4, MIN_TRIM + 9]
