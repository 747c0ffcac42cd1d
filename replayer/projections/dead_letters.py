"""Dead letters: records that cannot be applied, kept with origin and reason until somebody retries or clears them (I6, A3).

They lie in a topic of their own, each as it was: key, value, time and headers, and beside these the headers of Kafka Connect's
dead letter queues, so that ordinary tools show them. What becomes of them is written there too, as marks; so every node has the
same list, after any crash. Several nodes may bury the same record: the list folds them into one by their origin.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from catalog.collection import MAX_NAME_CHARS
from journal.log import Appended, Entry, Headers, Journal, Positions, TopicPartition, acknowledged
from journal.topics import Topics
from replayer.loop import Projection

BURY_TIMEOUT_S = 10.0
MAX_ORIGINS = 10_000
"""Origins remembered of letters that have left, so that a slow replica's copy does not bring one back."""

TRIM_FROM = 100
"""Dead letters are removed from the log when as many at its beginning are of no more use."""

IN_ALL = 20
"""The list holds this many times the letters that it holds of one collection: producers choose the names."""

MAX_REASON_CHARS = 500
MAX_TOPIC_CHARS = 249
MAX_COUNTED = 10_000
"""Collections whose letters that left are counted apart from all others; see `DeadLetters`."""

OTHERS = ""
"""The name under which letters of collections that do not exist are counted, and those of none."""

_ERRORS, _OWN = "__connect.errors.", "vecraft-dead-letter-"
_MARK = f"{_OWN}mark"


class Burial(NamedTuple):
    """A record to be buried, why, and the name of the collection that it was for, if it is known."""

    entry: Entry
    reason: str
    collection: str = ""


class DeadLetter(NamedTuple):
    """A letter in the list. `number` is its offset in the topic of dead letters, by which it is called."""

    number: int
    origin: TopicPartition
    offset: int
    collection: str
    reason: str
    buried_ms: int
    time_ms: int


class _Mark(msgspec.Struct):
    """A record that takes letters from the list."""

    removed: list[int]


def bury(journal: Journal, topics: Topics, burials: Sequence[Burial], now_ms: int) -> None:
    """Writes dead letters and returns when they are durable. Raises JournalError when they are not."""
    futures = [
        journal.append(
            topics.dead_letter_partition,
            burial.entry.value,
            burial.entry.key,
            _headers(burial, now_ms),
            time_ms=burial.entry.time_ms,
        )
        for burial in burials
    ]
    for future in futures:
        acknowledged(future, BURY_TIMEOUT_S)


def remove(journal: Journal, topics: Topics, letters: Iterable[DeadLetter], why: str) -> Appended:
    """Writes the mark that takes letters from every node's list. Returns when it is durable; raises JournalError."""
    mark = msgspec.json.encode(_Mark([letter.number for letter in letters]))
    headers = [(_MARK, why.encode())]
    return acknowledged(journal.append(topics.dead_letter_partition, mark, None, headers), BURY_TIMEOUT_S)


def original(entry: Entry, letter: DeadLetter) -> Entry:
    """The record that was buried, from the record it was buried as."""
    headers = tuple((name, value) for name, value in entry.headers if not name.startswith((_ERRORS, _OWN)))
    return Entry(letter.origin, letter.offset, entry.time_ms, entry.key, entry.value, headers)


def _headers(burial: Burial, now_ms: int) -> Headers:
    entry, reason, collection = burial
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
    """The list, folded from the topic. At most `most` letters of a collection and IN_ALL times as many together, the oldest
    leave; each for `keep_ms` at most. Texts in them are cut to MAX_NAME_CHARS and MAX_REASON_CHARS.

    Anybody may write names into the topic. So `evictions` and `expirations`, the letters that have left, count by name only
    those of collections that are `known` at that moment, for MAX_COUNTED names at most, and all others under OTHERS.
    One thread applies, any thread reads.
    """

    def __init__(self, most: int = 1000, keep_ms: int = 7 * 24 * 3600 * 1000) -> None:
        self.evictions: Counter[str] = Counter()
        self.expirations: Counter[str] = Counter()
        self._most = most
        self._keep_ms = keep_ms
        self._lock = threading.Lock()
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._by_collection: dict[str, OrderedDict[int, None]] = {}
        self._origins: OrderedDict[tuple[TopicPartition, int], None] = OrderedDict()

    def apply(self, entry: Entry, known: Container[str]) -> None:
        """Takes in the next record of the topic. What is neither a letter nor a mark is passed over."""
        headers = dict(entry.headers)
        try:
            if _MARK in headers:
                removed = msgspec.json.decode(entry.value, type=_Mark).removed
                with self._lock:
                    self._drop(removed)
                return
            letter = _letter(entry, headers)
        except (ValueError, KeyError, msgspec.MsgspecError):
            return
        with self._lock:
            self._add(letter, known)

    def expire(self, now_ms: int, known: Container[str]) -> None:
        """Lets go of letters that were kept long enough."""
        with self._lock:
            old = [letter for letter in self._letters.values() if letter.buried_ms <= now_ms - self._keep_ms]
            for letter in old:
                self._leave(letter, self.expirations, known)

    def list(self, collection: str | None = None) -> list[DeadLetter]:
        """The letters, oldest first; of one collection, or of all."""
        with self._lock:
            return [letter for letter in self._letters.values() if collection in (None, letter.collection)]

    def get(self, number: int) -> DeadLetter | None:
        return self._letters.get(number)

    def sizes(self, known: Iterable[str]) -> dict[str, int]:
        """How many letters there are of each known collection, and under OTHERS of all others."""
        with self._lock:
            sizes = {name: len(self._by_collection.get(name, ())) for name in known}
            return {OTHERS: len(self._letters) - sum(sizes.values())} | sizes

    def first(self) -> int | None:
        """The number of the oldest letter; everything before it in the topic is of no more use."""
        with self._lock:
            return next(iter(self._letters), None)

    def _add(self, letter: DeadLetter, known: Container[str]) -> None:
        origin = (letter.origin, letter.offset)
        if origin in self._origins:
            return
        self._origins[origin] = None
        if len(self._origins) > MAX_ORIGINS + len(self._letters):
            self._origins.popitem(last=False)
        self._letters[letter.number] = letter
        of_collection = self._by_collection.setdefault(letter.collection, OrderedDict())
        of_collection[letter.number] = None
        if len(of_collection) > self._most:
            self._leave(self._letters[next(iter(of_collection))], self.evictions, known)
        if len(self._letters) > IN_ALL * self._most:
            self._leave(next(iter(self._letters.values())), self.evictions, known)

    def _leave(self, letter: DeadLetter, counter: Counter[str], known: Container[str]) -> None:
        apart = letter.collection in known and (letter.collection in counter or len(counter) < MAX_COUNTED)
        counter[letter.collection if apart else OTHERS] += 1
        self._drop([letter.number])

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if (letter := self._letters.pop(number, None)) is not None:
                of_collection = self._by_collection[letter.collection]
                del of_collection[number]
                if not of_collection:
                    del self._by_collection[letter.collection]


def _letter(entry: Entry, headers: Mapping[str, bytes]) -> DeadLetter:
    """Raises KeyError or ValueError when the record is no letter."""
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
    )


def _number(text: bytes) -> int:
    """A number of at most 18 digits: one that every reader of JSON can take."""
    if len(text) > 18 or not text.isdigit():
        raise ValueError(f"{text[:32]!r} is not a number")
    return int(text)


class DeadLettersProjection(Projection):
    """Folds the topic of dead letters into `letters`, and trims the log below the list's oldest letter."""

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
        self._starts_at = 0

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        return [[self._partition]]

    def open(self, ends: Positions, committed: Positions) -> Positions:
        """The list is always folded from the beginning of the topic."""
        self._starts_at = self._journal.start_offsets([self._partition])[self._partition]
        return {self._partition: self._starts_at}

    def apply(self, entries: Sequence[Entry]) -> Positions:
        for entry in entries:
            self.letters.apply(entry, self._known())
        return {}

    def keep(self, applied: Positions) -> None:
        """Removes dead letters from the log that have left the list, from its beginning on."""
        self.letters.expire(self._now_ms(), self._known())
        first = self.letters.first()
        useless = applied[self._partition] if first is None else first
        if useless - self._starts_at >= TRIM_FROM:
            self._journal.trim({self._partition: useless})
            self._starts_at = useless
