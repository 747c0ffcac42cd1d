"""`vecraft journal tail|show|repair|trim`: prints records of the log, repairs one that has lost some, cuts off its old part."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from journal import codec
from journal.embedded import EmbeddedJournal
from journal.hlc import COUNTER_BITS, millis_of, text_of
from journal.log import Entry, Journal, JournalError, TopicPartition
from journal.records import describe
from journal.topics import Topics
from vecraft.commands import CommandError, journal_failure
from vecraft.commands.journal_trim import add_trim, trim
from vecraft.flags import add_settings
from vecraft.settings import Settings

DESCRIPTION = """\
Prints records of the log: of a folder, also while a node serves it, or of Kafka. Repairs a log that has lost records, while the
node is stopped. Cuts off its old part, while the node runs. Takes the settings of `vecraft serve`."""
EXAMPLES = """\
examples:
  vecraft journal tail --data-dir data --follow
  vecraft journal show vecraft.tier1/0/42 --data-dir data
  vecraft journal show my-request-id --journal kafka --bootstrap-servers broker1:9092
  vecraft journal repair --data-dir data               say what the log has lost; change nothing
  vecraft journal repair --data-dir data --write-back  write to the log what the state still knows
  vecraft journal trim --dry-run --retention 30d       say what would go of the log of a running node
"""
SHOWN = ("data_dir", "journal", "bootstrap_servers", "kafka_config", "topic_prefix")
REFRESH_S = 0.5
MAX_DIGITS = 18
"""Maximum digits of an offset, so that it fits into 63 bits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    text = "print the latest records of all topics, in the order of their time"
    tail = actions.add_parser("tail", help=text, description=f"{text.capitalize()}.")
    tail.add_argument("--count", type=_count, default=10, metavar="N", help="how many (default: 10)")
    tail.add_argument("--follow", action="store_true", help="go on with new ones until Ctrl-C (default: end)")
    add_settings(tail, SHOWN)
    text = "print a record in full, or all records of a request"
    show = actions.add_parser("show", help=text, description=f"{text.capitalize()}; of vectors only that they are there.")
    show.add_argument("what", metavar="WHAT", help="a position (topic/partition/offset), or a request id")
    add_settings(show, SHOWN)
    text = "say what the log has lost, compared with this node's state; the node must be stopped"
    repair = actions.add_parser("repair", help=text, description=f"{text.capitalize()}.")
    what = repair.add_mutually_exclusive_group()
    what.add_argument("--write-back", action="store_true", help="write to the log what the state still knows")
    what.add_argument("--accept-loss", action="store_true", help="go on with the log as it is")
    add_settings(repair, SHOWN)
    add_trim(actions)


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the requested records. Raises CommandError when the journal or the record does not exist."""
    try:
        if options.action == "trim":
            return trim(settings, options)
        if options.action == "repair":
            from vecraft.recovery import repair

            repair(settings, options.write_back, options.accept_loss)
            return 0
        with ExitStack() as stack:
            if options.action == "tail":
                _tail(open_to_read(settings, stack), partitions_of(settings), options.count, options.follow)
            else:
                _show(settings, stack, options.what)
    except JournalError as error:
        raise journal_failure(error, settings) from error
    return 0


def _count(text: str) -> int:
    if not _is_number(text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of records, must be 1 or more")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _tail(journal: Journal, partitions: list[TopicPartition], count: int, follow: bool) -> None:
    """Prints the last `count` records of all partitions, by append time. With `follow`, continues with new records."""
    ends = journal.end_offsets(partitions)
    firsts = journal.start_offsets(partitions)
    starts = {partition: max(firsts[partition], end - count) for partition, end in ends.items()}
    entries = sorted(_read(journal, starts, ends), key=lambda entry: (entry.time_ms, entry.partition, entry.offset))
    for entry in entries[-count:]:
        print(line(entry), flush=True)
    while follow:
        time.sleep(REFRESH_S)
        if isinstance(journal, EmbeddedJournal):
            journal.refresh()
        starts, ends = ends, journal.end_offsets(partitions)
        for entry in _read(journal, starts, ends):
            print(line(entry), flush=True)


def _show(settings: Settings, stack: ExitStack, what: str) -> None:
    """Prints the record at a position, or all records of a request id."""
    position = _position(what) if "/" in what else None
    journal = open_to_read(settings, stack)
    if position is not None:
        entries = [_record_at(journal, partitions_of(settings), *position)]
    else:
        starts, ends = journal.start_offsets(partitions_of(settings)), journal.end_offsets(partitions_of(settings))
        entries = [entry for entry in _read(journal, starts, ends) if _request_id(entry) == what]
        if not entries:
            raise CommandError(f"the journal has no record of request {what!r}")
    for entry in entries:
        print(details(entry))


def _position(text: str) -> tuple[TopicPartition, int]:
    parts = text.split("/")
    if len(parts) != 3 or not all(map(_is_number, parts[1:])):
        raise CommandError(f"{text!r} is not a position: topic/partition/offset, such as vecraft.tier1/0/42")
    return TopicPartition(parts[0], int(parts[1])), int(parts[2])


def _record_at(journal: Journal, partitions: list[TopicPartition], partition: TopicPartition, offset: int) -> Entry:
    name = str(partition)
    if partition not in partitions:
        topics = ", ".join(dict.fromkeys(known.topic for known in partitions))
        raise CommandError(f"the journal has no partition {name}, its topics are {topics}")
    end = journal.end_offsets([partition])[partition]
    if offset >= end:
        raise CommandError(f"{name} has no record at {offset}, " + (f"its last is at {end - 1}" if end else "it is empty"))
    if offset < (start := journal.start_offsets([partition])[partition]):
        raise CommandError(f"{name} has no record at {offset} any more: the log was cut, its first is at {start}")
    return next(_read(journal, {partition: offset}, {partition: offset + 1}))


def line(entry: Entry) -> str:
    """A record as one line of text."""
    moment = text_of(entry.time_ms)
    place = f"{entry.partition}/{entry.offset}"
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError as error:
        return f"{moment}  {place}  not a record: {error}"
    return f"{moment}  {place}  {record.request_id or '-'}  {describe(record.operation)}"


def details(entry: Entry) -> str:
    """A record in full, without its vectors."""
    rows = [
        ("position", f"{entry.partition}/{entry.offset}"),
        ("appended", text_of(entry.time_ms)),
        ("bytes", str(len(entry.value))),
    ]
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError as error:
        rows.append(("content", f"not a record: {error}"))
    else:
        counter = record.hlc & (1 << COUNTER_BITS) - 1
        rows += [
            ("hlc", f"{record.hlc} ({text_of(millis_of(record.hlc))}, counter {counter})"),
            ("request", record.request_id or "-"),
            ("idempotency key", record.idempotency_key or "-"),
            ("collection", str(record.collection)),
            ("shard", str(record.shard)),
            ("catalog position", str(record.catalog_position)),
            ("operation", describe(record.operation)),
        ]
    return "\n".join(f"{name:>17}  {value}" for name, value in rows)


def open_to_read(settings: Settings, stack: ExitStack) -> Journal:
    """Opens the journal for reading. An embedded journal may be in use by a running node."""
    from vecraft.kafka import command_journal
    from vecraft.roles import journal_folder

    journal: Journal
    if settings.journal == "kafka":
        journal = command_journal(settings, "journal")
        stack.callback(journal.close)
    else:
        folder = journal_folder(settings)
        try:
            if not (folder / "CURRENT").is_file():  # else RocksDB would create files there
                raise CommandError(f"there is no journal in {folder}: --data-dir names the folder of a node")
            journal = EmbeddedJournal.follow(folder, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        except CommandError:
            raise
        except Exception as error:  # RocksDB's errors have no class of their own
            raise CommandError(f"cannot read the journal in {folder}: {' '.join(str(error).split())}") from error
        stack.callback(journal.close)
        if not journal.knows(partitions_of(settings)[0]):
            prefix = settings.topic_prefix
            raise CommandError(f"the journal has no topics {prefix}.*, --topic-prefix names those of the node")
    return journal


def partitions_of(settings: Settings) -> list[TopicPartition]:
    """The partitions of the catalog and of the data."""
    topics = Topics(settings.topic_prefix)
    return [topics.system_partition, *topics.data_partitions()]


def _read(journal: Journal, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> Iterator[Entry]:
    """The entries from `starts` up to `ends`, excluded. The log must already hold them."""
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
