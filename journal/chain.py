"""The hash chain of a partition: one digest for all its records up to an offset (N12).

Several producers write to a log, so the chain cannot be in the records: whoever reads the partition computes it, and everybody
gets the same. docs/audit.md has the form for other programs. (The digests in the entries of the embedded log are another thing:
they find damage when an entry is read, and whoever can write the file can make them anew.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from journal.log import Entry, TopicPartition

DIGEST_BYTES = 32

EVERY = 1_000
"""Heads are noted at the multiples of this offset, so that those of several nodes can be compared."""

_encode = msgspec.msgpack.Encoder().encode


class Head(NamedTuple):
    """A chain up to `offset`, excluded: the number of its records, and their digest."""

    offset: int
    records: int
    digest: bytes


def begin(partition: TopicPartition, offset: int) -> Head:
    """The chain of a partition that begins at `offset`, without a record."""
    return Head(offset, 0, _digest(b"vecraft chain 1", _encode((partition.topic, partition.partition, offset))))


def link(before: bytes, entry: Entry) -> bytes:
    """The digest of a chain with one more record; `before` is that of the chain without it."""
    topic, partition = entry.partition
    return _digest(before, _encode((topic, partition, entry.offset, entry.time_ms, entry.key, entry.value, entry.headers)))


def extended(head: Head, entries: Iterable[Entry], position: int, every: int = EVERY) -> Iterator[Head]:
    """The chain with these entries, which follow `head` up to `position`: at the multiples of `every`, and last at `position`.

    Of multiples between which there is no record only the last is given.
    """
    last, records, digest = head
    for entry in entries:
        if (noted := entry.offset - entry.offset % every) > last:
            yield Head(noted, records, digest)
            last = noted
        digest = link(digest, entry)
        records += 1
    if last < (noted := position - position % every) < position:
        yield Head(noted, records, digest)
    yield Head(position, records, digest)


def _digest(before: bytes, content: bytes) -> bytes:
    digest = blake2b(before, digest_size=DIGEST_BYTES)
    digest.update(content)
    return digest.digest()
