"""Writing entries to a log and reading them back, within the bound of every wait."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait

from journal.log import Appended, Entry, Headers, Journal, JournalError, Member, Reader, TopicPartition
from tests.journal.waits import WAIT_S


def write(journal: Journal, partition: TopicPartition, *values: bytes, headers: Headers = ()) -> list[Appended]:
    """Appends the values without waiting in between, then waits until all are durable."""
    futures = [journal.append(partition, value, headers=headers) for value in values]
    return [future.result(WAIT_S) for future in futures]


def read(journal: Journal, start: Mapping[TopicPartition, int], **bounds: int) -> list[Entry]:
    """Everything from `start` to the end offsets of now, by a reader of its own."""
    ends = journal.end_offsets(list(start))
    reader = journal.reader()
    reader.assign(start)
    try:
        return [entry for batch in batches(reader, start, ends, **bounds) for entry in batch]
    finally:
        reader.close()


def batches(
    reader: Reader, start: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], **bounds: int
) -> Iterator[list[Entry]]:
    """Polls until the positions have reached `ends`; gives the batches that were not empty."""
    deadline = time.monotonic() + WAIT_S
    positions = start
    while any(positions[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < deadline, f"the reader stands at {positions}, the ends are {ends}"
        entries, positions = reader.poll(0.2, **bounds)
        if entries:
            yield entries


def values(entries: Iterable[Entry]) -> list[bytes]:
    return [entry.value for entry in entries]


def received(member: Member, count: int) -> list[Entry]:
    """Polls until so many entries have come."""
    deadline = time.monotonic() + WAIT_S
    entries: list[Entry] = []
    while len(entries) < count:
        assert time.monotonic() < deadline, f"{len(entries)} of {count} entries came"
        batch = member.poll(0.2)
        assert batch.positions.keys() >= {entry.partition for entry in batch.entries}
        entries += batch.entries
    return entries


def outcomes(futures: Sequence[Future[Appended]]) -> list[Appended | JournalError]:
    """What became of each append. Any other error is a failure of the journal to keep its word."""
    done, undecided = wait(futures, WAIT_S)
    assert not undecided, f"{len(undecided)} of {len(done) + len(undecided)} appends were never decided"
    found: list[Appended | JournalError] = []
    for future in futures:
        try:
            found.append(future.result(0))
        except JournalError as error:
            found.append(error)
    return found
