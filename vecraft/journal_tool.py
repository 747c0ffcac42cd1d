"""`vecraft journal tail|show`: the log as text for people."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from journal import codec
from journal.embedded import EmbeddedJournal
from journal.hlc import COUNTER_BITS, millis_of
from journal.log import Entry, Journal, TopicPartition
from journal.records import describe
from journal.topics import Topics
from vecraft.roles import journal_folder, open_journal
from vecraft.settings import Settings

REFRESH_S = 0.5


def tail(settings: Settings, count: int, follow: bool) -> None:
    """Prints the last `count` records of the whole journal in the order of their time; with `follow` goes on."""
    with ExitStack() as stack:
        journal = _opened(settings, stack)
        partitions = _partitions(settings)
        ends = journal.end_offsets(partitions)
        starts = {partition: max(0, end - count) for partition, end in ends.items()}
        entries = sorted(_read(journal, starts, ends), key=lambda entry: (entry.time_ms, entry.partition, entry.offset))
        for entry in entries[-count:]:
            print(line(entry))
        while follow:
            time.sleep(REFRESH_S)
            if isinstance(journal, EmbeddedJournal):
                journal.refresh()
            starts, ends = ends, journal.end_offsets(partitions)
            for entry in _read(journal, starts, ends):
                print(line(entry), flush=True)


def show(settings: Settings, what: str) -> int:
    """Prints the record at `topic/partition/offset`, or all records of a request id. Returns how many there were."""
    with ExitStack() as stack:
        journal = _opened(settings, stack)
        topic, _, rest = what.partition("/")
        if rest:
            partition, offset = (int(part) for part in rest.split("/"))
            at = TopicPartition(topic, partition)
            if at not in _partitions(settings) or offset >= journal.end_offsets([at])[at]:
                return 0
            found = list(_read(journal, {at: offset}, {at: offset + 1}))
        else:
            ends = journal.end_offsets(_partitions(settings))
            found = [entry for entry in _read(journal, dict.fromkeys(ends, 0), ends) if _request_id(entry) == what]
        for entry in found:
            print(details(entry))
        return len(found)


def line(entry: Entry) -> str:
    """One record in one line."""
    moment = _text_of(entry.time_ms)
    place = f"{entry.partition.topic}/{entry.partition.partition}/{entry.offset}"
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError as error:
        return f"{moment}  {place}  not a record: {error}"
    return f"{moment}  {place}  {record.request_id or '-'}  {describe(record.operation)}"


def details(entry: Entry) -> str:
    """One record in full, less its vectors."""
    rows = [
        ("position", f"{entry.partition.topic}/{entry.partition.partition}/{entry.offset}"),
        ("appended", _text_of(entry.time_ms)),
        ("bytes", str(len(entry.value))),
    ]
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError as error:
        rows.append(("content", f"not a record: {error}"))
    else:
        counter = record.hlc & (1 << COUNTER_BITS) - 1
        rows += [
            ("hlc", f"{record.hlc} ({_text_of(millis_of(record.hlc))}, counter {counter})"),
            ("request", record.request_id or "-"),
            ("idempotency key", record.idempotency_key or "-"),
            ("collection", str(record.collection)),
            ("shard", str(record.shard)),
            ("catalog position", str(record.catalog_position)),
            ("operation", describe(record.operation)),
        ]
    return "\n".join(f"{name:>17}  {value}" for name, value in rows)


def _opened(settings: Settings, stack: ExitStack) -> Journal:
    """The journal to read; an embedded one may be open in a running node."""
    journal: Journal
    if settings.journal == "embedded":
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        journal = EmbeddedJournal.follow(journal_folder(settings), Path(scratch))
    else:
        journal = open_journal(settings)
    stack.callback(journal.close)
    return journal


def _partitions(settings: Settings) -> list[TopicPartition]:
    topics = Topics(settings.topic_prefix)
    return [topics.system_partition, *topics.data_partitions()]


def _read(journal: Journal, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> Iterator[Entry]:
    """The entries from `starts` up to `ends`, which the log must hold."""
    reader = journal.reader()
    try:
        reader.assign({p: offset for p, offset in starts.items() if offset < ends[p]})
        while True:
            batch = reader.poll(1.0)
            yield from (entry for entry in batch.entries if entry.offset < ends[entry.partition])
            if all(offset >= ends[p] for p, offset in batch.positions.items()):
                return
    finally:
        reader.close()


def _request_id(entry: Entry) -> str:
    try:
        return codec.decode(entry.value).request_id
    except codec.DecodeError:
        return ""


def _text_of(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
