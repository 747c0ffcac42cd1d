"""Dead letters: records that cannot be applied, kept with origin and reason until somebody retries or clears them (I6, A3).

They lie in a topic of their own, each as it was: key, value, time and headers, and beside these the headers of Kafka Connect's
dead letter queues, so that ordinary tools show them. What becomes of them is written there too, as marks; so every node has the
same list, after any crash. Several nodes may bury the same record: the list folds them into one by their origin.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from journal.log import Appended, Entry, Headers, Journal, TopicPartition
from journal.topics import Topics

BURY_TIMEOUT_S = 10.0
MAX_ORIGINS = 10_000
"""Origins remembered of letters that have left, so that a slow replica's copy does not bring one back."""

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
        future.result(BURY_TIMEOUT_S)


def remove(journal: Journal, topics: Topics, letters: Iterable[DeadLetter], why: str) -> Appended:
    """Writes the mark that takes letters from every node's list. Returns when it is durable; raises JournalError."""
    mark = msgspec.json.encode(_Mark([letter.number for letter in letters]))
    headers = [(_MARK, why.encode())]
    return journal.append(topics.dead_letter_partition, mark, None, headers).result(BURY_TIMEOUT_S)


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
        "exception.message": reason,
    }
    return [
        *(header for header in entry.headers if not header[0].startswith((_ERRORS, _OWN))),
        *((_ERRORS + name, value.encode()) for name, value in errors.items()),
        (f"{_OWN}collection", collection.encode()),
        (f"{_OWN}ms", str(now_ms).encode()),
    ]


class DeadLetters:
    """The list, folded from the topic. At most `most` letters of a collection, the oldest leave; each for `keep_ms` at most.

    One thread applies, any thread reads.
    """

    def __init__(self, most: int = 1000, keep_ms: int = 7 * 24 * 3600 * 1000) -> None:
        self.evictions: Counter[str] = Counter()
        self.expirations: Counter[str] = Counter()
        self._most = most
        self._keep_ms = keep_ms
        self._lock = threading.Lock()
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._sizes: Counter[str] = Counter()
        self._origins: OrderedDict[tuple[TopicPartition, int], None] = OrderedDict()

    def apply(self, entry: Entry) -> None:
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
            self._add(letter)

    def expire(self, now_ms: int) -> None:
        """Lets go of letters that were kept long enough."""
        with self._lock:
            old = [letter for letter in self._letters.values() if letter.buried_ms <= now_ms - self._keep_ms]
            self._drop([letter.number for letter in old])
            self.expirations.update(letter.collection for letter in old)

    def list(self, collection: str | None = None) -> list[DeadLetter]:
        """The letters, oldest first; of one collection, or of all."""
        with self._lock:
            return [letter for letter in self._letters.values() if collection in (None, letter.collection)]

    def get(self, number: int) -> DeadLetter | None:
        return self._letters.get(number)

    def sizes(self) -> dict[str, int]:
        """Letters by collection, also of those that had some."""
        with self._lock:
            return dict(self._sizes)

    def first(self) -> int | None:
        """The number of the oldest letter; everything before it in the topic is of no more use."""
        with self._lock:
            return next(iter(self._letters), None)

    def _add(self, letter: DeadLetter) -> None:
        origin = (letter.origin, letter.offset)
        if origin in self._origins:
            return
        self._origins[origin] = None
        if len(self._origins) > MAX_ORIGINS + len(self._letters):
            self._origins.popitem(last=False)
        self._letters[letter.number] = letter
        self._sizes[letter.collection] += 1
        if self._sizes[letter.collection] > self._most:
            oldest = next(number for number, kept in self._letters.items() if kept.collection == letter.collection)
            self._drop([oldest])
            self.evictions[letter.collection] += 1

    def _drop(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if (letter := self._letters.pop(number, None)) is not None:
                self._sizes[letter.collection] -= 1


def _letter(entry: Entry, headers: dict[str, bytes]) -> DeadLetter:
    """Raises KeyError or ValueError when the record is no letter."""
    origin = TopicPartition(headers[f"{_ERRORS}topic"].decode(), int(headers[f"{_ERRORS}partition"]))
    return DeadLetter(
        entry.offset,
        origin,
        int(headers[f"{_ERRORS}offset"]),
        headers[f"{_OWN}collection"].decode(),
        headers[f"{_ERRORS}exception.message"].decode(errors="replace"),
        int(headers[f"{_OWN}ms"]),
        entry.time_ms,
    )
