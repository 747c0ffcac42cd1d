"""What this node knows of its log, in the file `log.json` beside its state: which topics its state was made from.

State is a function of one log (I1). If a topic was deleted and made anew, or the cluster was replaced, nothing of what this node
has applied can be compared with what it would read, so it must not go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex

import msgspec

from journal.log import Journal, JournalError, Positions, TopicPartition, Unfit, lost_end
from journal.topics import TIERS, Topics

REMEDY = "`vecraft topics adopt` says what would be lost, and goes on with this log"

MISSING_S = 10.0
"""How long a topic must be missing before that is believed: a broker that has just started, or that has not heard of topics that
were just created, does not know all of them."""


class LogChanged(Unfit):
    """The log is not the one from which this node's state was made."""


class Known(msgspec.Struct):
    """The content of the file: the identity of each topic that holds truth, a random name of this state, how far the catalog was
    read, and below which offsets of a partition (`topic/partition`) an operator has accepted that records are lost.

    `passed`: of state that was restored from a snapshot, how far that had applied each partition; collections that were created
    at `passed_catalog` or later have no records below.

    `applied`, `applied_catalog`: the same of this node, as it was noted last. Only what was cut off is passed over for it, and no
    record that is there: a log that has lost its end gives the same offsets out again.
    """

    topics: dict[str, str] = {}
    owner: str = ""
    catalog: int = 0
    accepted: dict[str, int] = {}
    passed: dict[str, int] = {}
    passed_catalog: int = 0
    applied: dict[str, int] = {}
    applied_catalog: int = 0


class KnownLog:
    """The file `log.json` in `folder`."""

    def __init__(self, folder: Path, topics: Topics) -> None:
        self._path = folder / "log.json"
        self._system = topics.system_partition
        self._topics = [topics.system, *(topics.tier(tier) for tier in TIERS)]
        self._missing_since_s: dict[str, float] = {}
        self.known = self._read()

    def _read(self) -> Known:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Known)
        except (FileNotFoundError, ValueError, msgspec.MsgspecError):  # damaged: as for a node without state
            return Known()

    @property
    def identity(self) -> str:
        """A short text that tells this log from every other."""
        return _identity(self.known.topics)

    @property
    def owner(self) -> str:
        """A random name of this state, made with it: it tells this node from another one with the same name."""
        if not self.known.owner:
            self.write(msgspec.structs.replace(self.known, owner=token_hex(4)))
        return self.known.owner

    def check(self, journal: Journal) -> bool:
        """Raises LogChanged when a topic was made anew, or has been missing for MISSING_S though the log has had records.

        Returns whether all topics are there, or none was ever needed: then the missing ones may be created.
        """
        present = journal.identities(self._topics)
        changed = [topic for topic, identity in self.known.topics.items() if present.get(topic, identity) != identity]
        if changed:
            raise LogChanged(f"{_named(changed)} deleted and made anew, or the cluster was replaced; {REMEDY}")
        now_s = time.monotonic()
        missing = [topic for topic in self._topics if topic not in present]
        self._missing_since_s = {topic: self._missing_since_s.get(topic, now_s) for topic in missing}
        if not missing or not (self.known.topics or self._has_records(journal, present)):
            return True
        if gone := [topic for topic, since_s in self._missing_since_s.items() if now_s - since_s >= MISSING_S]:
            raise LogChanged(f"{_named(gone)} missing, and the log has had records; {REMEDY}")
        return False

    def _has_records(self, journal: Journal, present: Mapping[str, str]) -> bool:
        return self._system.topic in present and journal.end_offsets([self._system])[self._system] > 0

    def note(self, journal: Journal, ends: Positions) -> None:
        """Notes the topics, which all exist, as this node's log. Raises LogChanged when the catalog has lost its end."""
        if (lost := journal.refusals().get(self._system)) is not None:  # the log itself knows, also when this node has no state
            raise LogChanged(f"{lost}; {REMEDY}")
        if self.known.catalog > (end := ends[self._system]):
            raise LogChanged(f"{lost_end(self._system, end, self.known.catalog)}; {REMEDY}")
        present = journal.identities(self._topics)
        if len(present) < len(self._topics):
            raise JournalError("the broker that was asked does not know all topics yet")
        self._missing_since_s = {}
        if present != self.known.topics:
            self.write(msgspec.structs.replace(self.known, topics=present))

    def identity_in(self, journal: Journal) -> str:
        """The identity that this log would have if it were that of `journal`."""
        return _identity(journal.identities(self._topics))

    def adopt(self, journal: Journal) -> None:
        """Notes the topics of `journal`, which all exist, as this node's log: they hold a copy of it."""
        topics = journal.identities(self._topics)
        self.write(msgspec.structs.replace(self.known, topics=topics, accepted={}, applied={}, applied_catalog=0))

    def note_applied(self, applied: Positions) -> None:
        """Notes how far the catalog and the other partitions are applied; all at one moment."""
        catalog = applied[self._system]
        named = {str(partition): offset for partition, offset in applied.items() if partition.topic in self._topics}
        if named != self.known.applied:
            top = max(catalog, self.known.catalog)
            self.write(msgspec.structs.replace(self.known, catalog=top, applied=named, applied_catalog=catalog))

    def reload(self) -> None:
        """Reads the file again, after the state was replaced."""
        self.known = self._read()

    def passed(self, partition: TopicPartition, collection_id: int, start: int) -> int:
        """Below which offset of a partition, whose first record is at `start`, there are certainly no records of a collection."""
        known, name = self.known, str(partition)
        passed = known.passed.get(name, 0) if collection_id >= known.passed_catalog else 0
        applied = known.applied.get(name, 0) if collection_id >= known.applied_catalog else 0
        return max(passed, start if start <= applied else 0)

    def accepted(self, partition: TopicPartition) -> int:
        """Below which offset of a partition records may be missing, because an operator has accepted that."""
        return self.known.accepted.get(str(partition), 0)

    def write(self, known: Known) -> None:
        """Replaces the file. Not synced: what a loss of power takes is known of an earlier moment, or read from the log again."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(known)))
        unfinished.rename(self._path)
        self.known = known


def _identity(topics: Mapping[str, str]) -> str:
    return blake2b("".join(topics.values()).encode(), digest_size=8).hexdigest()


def _named(topics: Sequence[str]) -> str:
    return f"topic{'s' if len(topics) > 1 else ''} {', '.join(topics)} {'were' if len(topics) > 1 else 'was'}"
