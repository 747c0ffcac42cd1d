"""Dead letters: records that cannot be applied, kept with source and reason until a person retries or clears them (I6, A3).

To bury a record is to append it to the dead-letter topic, with unchanged key, value, time and headers, and with the headers of
Kafka Connect's dead letter queues, so that standard tools can show it. Removals are appended to the same topic, as marks. So all
nodes fold the same list from the topic, after any crash.

Several nodes may bury the same record, and a new node buries all of them again. Each node buries the refused records of a
partition in offset order, so a letter at or below the highest position that was buried from its log and partition before is a
copy, and is ignored. Before the topic is trimmed, these positions are appended to it as a mark.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from catalog.collection import MAX_NAME_CHARS
from journal.log import Appended, Entry, Headers, Journal, Positions, TopicPartition, acknowledged
from journal.topics import Topics
from replayer.loop import LogBounds, Projection

BURY_TIMEOUT_S = 10.0
MAX_SOURCES = 10_000
"""Logs and partitions of which the highest buried position is kept; the one that was used longest ago leaves."""

MIN_TRIM = 100
"""The dead-letter topic is trimmed when at least this many entries at its start are no longer in the list."""

TOTAL_FACTOR = 20
"""Bound of the whole list, as a multiple of the bound per collection. Needed because producers choose collection names."""

MAX_REASON_CHARS = 500
MAX_TOPIC_CHARS = 249
MAX_COUNTED_NAMES = 10_000
"""Number of collections with their own counters in `DeadLetters.evictions` and `DeadLetters.expirations`."""

OTHERS = ""
"""The counter name for letters of unknown collections, or without a collection."""

MAX_WHOLE_BYTES = 900_000
"""A larger record, with key and headers, is buried in part: a producer may write more than fits into a letter with its reason."""

KEPT_BYTES = 64 << 10
"""What is kept of the value of a record that is buried in part."""

KEPT_KEY_BYTES, KEPT_HEADER_BYTES = 4096, 16 << 10

_ERRORS, _OWN = "__connect.errors.", "vecraft-dead-letter-"
_MARK, _WHOLE, _LOG = f"{_OWN}mark", f"{_OWN}bytes", f"{_OWN}log"


class Burial(NamedTuple):
    """A record to append to the dead-letter topic, the reason, and the name of its collection ("" when unknown).

    `run` tells one reading of a log from another, such as that after an operator has moved the ingest back: each may bury the
    same record, and none of these letters is a copy.
    """

    entry: Entry
    reason: str
    collection: str = ""
    run: str = ""


class DeadLetter(NamedTuple):
    """A letter in the list. `number`, its id, is its offset in the dead-letter topic; `origin` and `offset` are its source."""

    number: int
    origin: TopicPartition
    offset: int
    collection: str
    reason: str
    buried_ms: int
    time_ms: int
    whole_bytes: int | None = None
    """The size of the value, if the letter holds only its first KEPT_BYTES."""


class _Mark(msgspec.Struct):
    """The value of a mark: the numbers of letters to remove from the list, and the next position to bury of each source."""

    removed: list[int] = []
    buried: list[tuple[str, int, int]] = []
    """Identity of a topic, partition, and offset."""


def bury(journal: Journal, topics: Topics, burials: Sequence[Burial], now_ms: int) -> None:
    """Appends dead letters and waits until they are durable. Raises JournalError."""
    futures = []
    logs = journal.identities(list({burial.entry.partition.topic for burial in burials})) if burials else {}
    for entry, reason, collection, run in burials:
        kept, whole_bytes = _kept(entry)
        headers = [*_headers(kept, reason, collection, now_ms), (_LOG, (run + logs.get(entry.partition.topic, "")).encode())]
        if whole_bytes is not None:
            digest = sha256(entry.value).hexdigest()
            headers = [*headers, (_WHOLE, str(whole_bytes).encode()), (f"{_OWN}sha256", digest.encode())]
        futures.append(journal.append(topics.dead_letter_partition, kept.value, kept.key, headers, time_ms=entry.time_ms))
    for future in futures:
        acknowledged(future, BURY_TIMEOUT_S)


def _kept(entry: Entry) -> tuple[Entry, int | None]:
    """What is buried of a record, and the size of its value if that is only a part."""
    key, headers = entry.key or b"", entry.headers
    extra = len(key) + sum(len(name) + len(value) for name, value in headers)
    if len(entry.value) + extra <= MAX_WHOLE_BYTES:
        return entry, None
    if extra > KEPT_HEADER_BYTES:
        key, headers = key[:KEPT_KEY_BYTES], _first_headers(headers)
    return entry._replace(value=entry.value[:KEPT_BYTES], key=key or None, headers=headers), len(entry.value)


def _first_headers(headers: Headers) -> Headers:
    """The first headers, up to KEPT_HEADER_BYTES."""
    kept, size = [], 0
    for name, value in headers:
        size += len(name) + len(value)
        if size > KEPT_HEADER_BYTES:
            break
        kept.append((name, value))
    return kept


def remove(journal: Journal, topics: Topics, letters: Iterable[DeadLetter], why: str, now_ms: int) -> Appended:
    """Appends a mark that removes letters from the list of every node. Waits until it is durable; raises JournalError."""
    return _append_mark(journal, topics.dead_letter_partition, _Mark([letter.number for letter in letters]), why, now_ms)


def _append_mark(journal: Journal, partition: TopicPartition, mark: _Mark, why: str, now_ms: int) -> Appended:
    headers = [(_MARK, why.encode())]
    return acknowledged(journal.append(partition, msgspec.json.encode(mark), None, headers, time_ms=now_ms), BURY_TIMEOUT_S)


def original(entry: Entry, letter: DeadLetter) -> Entry:
    """The original record of a letter. `entry` is the letter's entry in the dead-letter topic."""
    headers = tuple((name, value) for name, value in entry.headers if not name.startswith((_ERRORS, _OWN)))
    return Entry(letter.origin, letter.offset, entry.time_ms, entry.key, entry.value, headers)


def _headers(entry: Entry, reason: str, collection: str, now_ms: int) -> Headers:
    errors = {
        "topic": entry.partition.topic,
        "partition": str(entry.partition.partition),
        "offset": str(entry.offset),
        "stage": "VALUE_CONVERTER",
        "exception.class.name": "vecraft.Refused",
        "exception.message": reason[:MAX_REASON_CHARS],
    }
    return [
        *(header for header in entry.headers if not header[0].startswith((_ERRORS, _OWN))),
        *((_ERRORS + name, value.encode()) for name, value in errors.items()),
        (f"{_OWN}collection", collection[:MAX_NAME_CHARS].encode()),
        (f"{_OWN}ms", str(now_ms).encode()),
    ]


class DeadLetters:
    """The list of dead letters, folded from the topic. Holds at most `most` letters per collection and TOTAL_FACTOR times as many
    in total, evicting the oldest; each letter expires after `keep_ms`. Texts are cut to MAX_NAME_CHARS and MAX_REASON_CHARS.

    `evictions` and `expirations` count the letters that left the list, by collection. Producers can write any name, so only
    collections that are `known` at that moment get a counter, at most MAX_COUNTED_NAMES; all others count under OTHERS.
    One thread applies; any thread reads.
    """

    def __init__(self, most: int = 1000, keep_ms: int = 7 * 24 * 3600 * 1000) -> None:
        self.evictions: Counter[str] = Counter()
        self.expirations: Counter[str] = Counter()
        self._most = most
        self._keep_ms = keep_ms
        self._lock = threading.Lock()
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._by_collection: dict[str, OrderedDict[int, None]] = {}
        self._buried: OrderedDict[tuple[str, int], int] = OrderedDict()
        """The next position to bury by identity of the topic and partition."""

    def apply(self, entry: Entry, known: Container[str]) -> None:
        """Applies the next record of the topic. Ignores a record that is neither a letter nor a mark."""
        headers = dict(entry.headers)
        try:
            if _MARK in headers:
                mark = msgspec.json.decode(entry.value, type=_Mark)
                with self._lock:
                    self._drop(mark.removed)
                    for log, partition, offset in mark.buried:
                        self._is_new((log, partition), offset - 1)
                return
            letter = _letter(entry, headers)
            source = (headers.get(_LOG, b"").decode()[:MAX_NAME_CHARS] or letter.origin.topic, letter.origin.partition)
        except (ValueError, KeyError, msgspec.MsgspecError):
            return
        with self._lock:
            if self._is_new(source, letter.offset):
                self._add(letter, known)

    def buried(self) -> list[tuple[str, int, int]]:
        """The next position to bury of each source: identity of the topic, partition, offset."""
        with self._lock:
            return [(source, partition, offset) for (source, partition), offset in self._buried.items()]

    def expire(self, now_ms: int, known: Container[str]) -> None:
        """Removes letters older than `keep_ms`."""
        with self._lock:
            old = [letter for letter in self._letters.values() if letter.buried_ms <= now_ms - self._keep_ms]
            for letter in old:
                self._evict(letter, self.expirations, known)

    def list(self, collection: str | None = None) -> list[DeadLetter]:
        """The letters, oldest first, of one collection or of all."""
        with self._lock:
            return [letter for letter in self._letters.values() if collection in (None, letter.collection)]

    def get(self, number: int) -> DeadLetter | None:
        return self._letters.get(number)

    def sizes(self, known: Iterable[str]) -> dict[str, int]:
        """The number of letters of each known collection, and of all others under OTHERS."""
        with self._lock:
            sizes = {name: len(self._by_collection.get(name, ())) for name in known}
            return {OTHERS: len(self._letters) - sum(sizes.values())} | sizes

    def oldest_ms(self) -> int | None:
        """When the oldest letter was buried, in ms since 1970; None when the list is empty."""
        with self._lock:
            return next((letter.buried_ms for letter in self._letters.values()), None)

    def first(self) -> int | None:
        """The number of the oldest letter, below which the topic can be trimmed; None when the list is empty."""
        with self._lock:
            return next(iter(self._letters), None)

    def _is_new(self, source: tuple[str, int], offset: int) -> bool:
        """Whether the record at `offset` was not buried before. Notes that it is."""
        before = self._buried.pop(source, 0)
        self._buried[source] = max(before, offset + 1)
        if len(self._buried) > MAX_SOURCES:
            self._buried.popitem(last=False)
        return offset >= before

    def _add(self, letter: DeadLetter, known: Container[str]) -> None:
        self._letters[letter.number] = letter
        of_collection = self._by_collection.setdefault(letter.collection, OrderedDict())
        of_collection[letter.number] = None
        if len(of_collection) > self._most:
            self._evict(self._letters[next(iter(of_collection))], self.evictions, known)
        if len(self._letters) > TOTAL_FACTOR * self._most:
            self._evict(next(iter(self._letters.values())), self.evictions, known)

    def _evict(self, letter: DeadLetter, counter: Counter[str], known: Container[str]) -> None:
        has_counter = letter.collection in known and (letter.collection in counter or len(counter) < MAX_COUNTED_NAMES)
        counter[letter.collection if has_counter else OTHERS] += 1
        self._drop([letter.number])

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if (letter := self._letters.pop(number, None)) is not None:
                of_collection = self._by_collection[letter.collection]
                del of_collection[number]
                if not of_collection:
                    del self._by_collection[letter.collection]


def _letter(entry: Entry, headers: Mapping[str, bytes]) -> DeadLetter:
    """Parses a letter. Raises KeyError or ValueError."""
    topic = headers[f"{_ERRORS}topic"].decode()
    if len(topic) > MAX_TOPIC_CHARS:
        raise ValueError(f"topic has {len(topic)} characters, the bound is {MAX_TOPIC_CHARS}")
    return DeadLetter(
        entry.offset,
        TopicPartition(topic, _number(headers[f"{_ERRORS}partition"])),
        _number(headers[f"{_ERRORS}offset"]),
        headers[f"{_OWN}collection"].decode()[:MAX_NAME_CHARS],
        headers[f"{_ERRORS}exception.message"].decode(errors="replace")[:MAX_REASON_CHARS],
        _number(headers[f"{_OWN}ms"]),
        entry.time_ms,
        _number(headers[_WHOLE]) if _WHOLE in headers else None,
    )


def _number(text: bytes) -> int:
    """Parses a number of at most 18 digits, so that it fits into 64 bits. Raises ValueError."""
    if len(text) > 18 or not text.isdigit():
        raise ValueError(f"{text[:32]!r} is not a number")
    return int(text)


class DeadLettersProjection(Projection):
    """Folds the dead-letter topic into `letters`, and trims the topic below the oldest letter."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        letters: DeadLetters,
        known: Callable[[], Container[str]],
        now_ms: Callable[[], int],
    ) -> None:
        self.letters = letters
        self._journal = journal
        self._partition = topics.dead_letter_partition
        self._known = known
        self._now_ms = now_ms
        self._start = 0

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        return [[self._partition]]

    def open(self, bounds: LogBounds, committed: Positions) -> Positions:
        """Always replays the topic from its start, because the list is not stored."""
        self._start = bounds.starts[self._partition]
        return {self._partition: self._start}

    def apply(self, entries: Sequence[Entry]) -> Positions:
        for entry in entries:
            self.letters.apply(entry, self._known())
        return {}

    def before_commit(self, applied: Positions) -> None:
        """Removes expired letters, and trims the topic below the oldest letter."""
        self.letters.expire(self._now_ms(), self._known())
        first = self.letters.first()
        new_start = applied[self._partition] if first is None else first
        if new_start - self._start >= MIN_TRIM:
            mark = _Mark(buried=self.letters.buried())
            _append_mark(self._journal, self._partition, mark, "trimmed", self._now_ms())
            self._journal.trim({self._partition: new_start})
            self._start = new_start
