"""All shards of this process, the shards in quarantine, and the applied positions of their partitions."""

from __future__ import annotations

import logging
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import msgspec

from catalog.collection import Collection
from catalog.history import Deleted
from journal.hlc import millis_of
from journal.log import Positions, TopicPartition
from journal.rocksdb import is_damage
from journal.statistics import of_rocksdb
from journal.topics import Topics
from shard.batch import Limits
from shard.deleted import DeletedCollections
from shard.descriptors import OutOfDescriptors, check_room
from shard.shard import Background, DamagedState, Shard, history_ms
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy

log = logging.getLogger(__name__)

_IDENTITY = "identity"
"""A file that names the log and the collection: after a log is restored or replaced, an id may mean another collection."""

STATE_FORMAT = 5
"""What is stored in another format is removed, and replayed from the log."""

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
MAX_REASON_CHARS = 500


class LogFault(Exception):
    """Records that a shard needs, or that it has applied, are not in the log any more. Its state is kept as it is."""


class Remedy(Enum):
    """What ends the quarantine of a shard."""

    RETRY = "it is tried again"
    REBUILD = "its state is removed and replayed from the log"
    OPERATOR = "its state is kept until an operator decides, see `vecraft journal repair --help`"


class Quarantine(NamedTuple):
    """A shard that is not served because of a failure in it. `failures` counts the failures in a row."""

    collection: str
    number: int
    reason: str
    failures: int
    remedy: Remedy = Remedy.RETRY

    @property
    def delay_s(self) -> float:
        """Backoff in seconds after the last failure, before the shard is opened again."""
        if self.remedy is Remedy.OPERATOR:
            return MAX_DELAY_S
        return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 10))


class ShardUnavailable(Exception):
    """A shard is in quarantine, so its collection cannot be read or written here. Retry after `retry_after_s` seconds."""

    def __init__(self, quarantine: Quarantine) -> None:
        within = "" if quarantine.remedy is Remedy.OPERATOR else f" within {quarantine.delay_s:g} s"
        super().__init__(
            f"shard {quarantine.number} of collection {quarantine.collection!r} is not served: {quarantine.reason}; "
            f"{quarantine.remedy.value}{within}"
        )
        self.retry_after_s = quarantine.delay_s


class Shards:
    """The shards of this process, in folders `<collection id>/<number>` below `folder`.

    One thread opens, quarantines and drops shards; any thread looks them up. A shard that fails is closed and put into
    quarantine. The other shards of its collection stay open and apply new records, but the whole collection is unavailable for
    reads and writes.
    """

    def __init__(
        self,
        folder: Path,
        topics: Topics,
        limits: Limits,
        builds: Background,
        policy: SegmentPolicy = DEFAULT_POLICY,
        checkpoints: Background | None = None,
    ) -> None:
        self.folder = folder
        self.log = ""
        """The identity of the log. State of another log is removed when it is opened."""
        self.damaged: SimpleQueue[tuple[Shard, Exception]] = SimpleQueue()
        """Shards whose files were found damaged, by a read or a background task."""
        self.on_damage: Callable[[], None] = lambda: None
        """Called, from any thread, when a shard was added to `damaged`."""
        self.deleted = DeletedCollections(folder / "deleted", self._open_deleted)
        self._topics = topics
        self._limits = limits
        self._builds = builds
        self._checkpoints = checkpoints or builds
        self._policy = policy
        self._slots: dict[int, tuple[Shard | Quarantine, ...]] = {}
        self._quarantined: dict[tuple[int, int], Quarantine] = {}

    # Looking up.

    def of(self, collection_id: int) -> list[Shard]:
        """The shards of a collection, by number; none when it is not open here. Raises ShardUnavailable."""
        shards = []
        for slot in self._slots.get(collection_id, ()):
            if isinstance(slot, Quarantine):
                raise ShardUnavailable(slot)
            shards.append(slot)
        return shards

    def served(self, collection_id: int) -> list[Shard]:
        """The shards of a collection that are not in quarantine."""
        return [slot for slot in self._slots.get(collection_id, ()) if isinstance(slot, Shard)]

    def find(self, collection_id: int, number: int) -> Shard | None:
        """The shard; None when it is in quarantine or not open here."""
        slots = self._slots.get(collection_id, ())
        slot = slots[number] if number < len(slots) else None
        return slot if isinstance(slot, Shard) else None

    def all(self) -> list[Shard]:
        """All shards that are not in quarantine."""
        return [slot for slots in self._slots.values() for slot in slots if isinstance(slot, Shard)]

    def quarantined(self) -> Mapping[tuple[int, int], Quarantine]:
        """The shards in quarantine, by collection id and shard number."""
        return self._quarantined

    def statistics(self) -> dict[str, float]:
        """What RocksDB measures of itself, in all shards together."""
        return of_rocksdb(value_of for shard in self.all() for value_of in shard.store.properties())

    # Changing.

    def open(self, collection: Collection) -> None:
        """Opens all shards of a collection with their state on disk, if any. A shard that fails to open goes into quarantine."""
        slots = tuple(self._opened(collection, number, 0) for number in range(collection.config.shard_number))
        self._set(collection.id, slots)

    def reopen(self, collection: Collection, number: int) -> Shard | Quarantine:
        """Opens a shard in quarantine; it stays there until `serve`, or `fail` with the new Quarantine if that is the result.

        May take long, and may be called from any thread. Damaged state is removed first.
        """
        known = self._quarantined.get((collection.id, number))
        if known is not None and known.remedy is Remedy.REBUILD:
            log.warning("removing the damaged state of shard %d of collection %s", number, collection.name)
            shutil.rmtree(self._folder_of(collection.id) / str(number), ignore_errors=True)
        return self._opened(collection, number, 0 if known is None else known.failures)

    def later(self, task: Callable[[], None]) -> None:
        """Runs a long task in the background, one after the other."""
        self._checkpoints(task)

    def fail(self, collection_id: int, failed: Quarantine) -> None:
        """Notes that a shard in quarantine could not be opened again."""
        self._put(collection_id, failed.number, failed)

    def serve(self, shard: Shard) -> None:
        """Ends the quarantine of a shard that was reopened and has caught up."""
        self._put(shard.collection.id, shard.number, shard)

    def quarantine(self, shard: Shard, error: Exception) -> None:
        """Closes a failed shard and stops serving it. Its state stays on disk, without the batch that failed."""
        id_, number = shard.collection.id, shard.number
        remedy = Remedy.OPERATOR if isinstance(error, LogFault) else Remedy.REBUILD if is_damage(error) else Remedy.RETRY
        self._put(id_, number, _quarantine(shard.collection, number, error, self._failures(id_, number), remedy))
        try:
            shard.release()
        except Exception as closing:  # a broken shard must not affect the others
            log.warning("closing shard %d of collection %s: %s", number, shard.collection.name, closing)

    def drop(self, collection: Collection, now_ms: int = 0) -> None:
        """Stops serving a collection's shards. They are closed, and their state is kept for its history or removed, in the
        background."""
        dropped = self.served(collection.id)
        is_whole = len(dropped) == len(self._slots.get(collection.id, ()))
        self._set(collection.id, ())
        kept_ms = history_ms(collection, self._limits) if dropped and is_whole else 0
        if kept_ms:
            self.deleted.expect(collection.id)
            self._checkpoints(partial(self._keep_deleted, collection, dropped, now_ms + kept_ms))
        else:
            self._checkpoints(partial(self._remove, self._folder_of(collection.id), dropped))

    def _keep_deleted(self, collection: Collection, shards: Sequence[Shard], until_ms: int) -> None:
        for shard in shards:
            shard.close()
        self.deleted.keep(self._folder_of(collection.id), collection.id, until_ms)

    def _open_deleted(self, folder: Path, collection: Collection) -> list[Shard]:
        identity = _identity(self.log, collection.name, collection.created_ms)
        if (folder / _IDENTITY).read_text(errors="replace") != identity:
            raise DamagedState(f"{folder} has the state of another collection")
        numbers = range(collection.config.shard_number)
        return [Shard(folder / str(number), collection, number, self._topics, self._limits, _never) for number in numbers]

    def remove(self, shard: Shard) -> None:
        """Closes a shard that was opened while its collection was dropped. Its state is removed in the background."""
        self._checkpoints(partial(self._remove, self._folder_of(shard.collection.id), [shard]))

    def _remove(self, folder: Path, shards: Sequence[Shard]) -> None:
        for shard in shards:
            shard.release()
        shutil.rmtree(folder, ignore_errors=True)

    def drop_strangers(self, known: Mapping[int, Collection], deleted: Mapping[int, Deleted], now_ms: int) -> None:
        """Removes the state of collections that are not in the catalog. That of deleted ones is kept for their history."""
        self.deleted.load()
        for folder in self.folder.glob("*"):
            if not folder.name.isdigit() or (id_ := int(folder.name)) in known:
                continue
            gone = deleted.get(id_)
            if gone is not None and (until_ms := millis_of(gone.stamp) + history_ms(gone.collection, self._limits)) > now_ms:
                self.deleted.keep(folder, id_, until_ms)  # this node was not there, or ended, when it was deleted
            else:
                log.info("removing the state of the deleted collection %s", folder.name)
                self._checkpoints(partial(self._remove, folder, []))

    def close(self) -> None:
        """Closes all shards; their state stays."""
        closing = self.all()
        self.deleted.close()
        self._slots, self._quarantined = {}, {}
        for shard in closing:
            shard.close()

    def _opened(self, collection: Collection, number: int, failures: int) -> Shard | Quarantine:
        try:
            check_room()
            self._claim_folder(collection)
            return self._new_shard(collection, number)
        except Exception as error:  # RocksDB's errors have no class of their own
            remedy = Remedy.REBUILD if is_damage(error) or isinstance(error, _UNREADABLE) else Remedy.RETRY
            return _quarantine(collection, number, error, failures, remedy)

    def _new_shard(self, collection: Collection, number: int) -> Shard:
        folder = self._folder_of(collection.id) / str(number)
        shard = Shard(folder, collection, number, self._topics, self._limits, self._builds, self._policy, self._checkpoints)
        shard.on_damage = partial(self._report, shard)
        return shard

    def _report(self, shard: Shard, error: Exception) -> None:
        self.damaged.put((shard, error))
        self.on_damage()

    def _folder_of(self, collection_id: int) -> Path:
        return self.folder / str(collection_id)

    def _claim_folder(self, collection: Collection) -> None:
        """Creates the collection's folder. State of another log, of another collection, or in another format is removed."""
        folder = self._folder_of(collection.id)
        identity = _identity(self.log, collection.name, collection.created_ms)
        if (folder / _IDENTITY).is_file() and (folder / _IDENTITY).read_text(errors="replace") == identity:
            return
        if not self.served(collection.id):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _IDENTITY).write_text(identity)

    def _failures(self, collection_id: int, number: int) -> int:
        slot = self._slots[collection_id][number]
        return slot.failures if isinstance(slot, Quarantine) else 0

    def _put(self, collection_id: int, number: int, slot: Shard | Quarantine) -> None:
        slots = self._slots[collection_id]
        self._set(collection_id, (*slots[:number], slot, *slots[number + 1 :]))

    def _set(self, collection_id: int, slots: tuple[Shard | Quarantine, ...]) -> None:
        """Sets the shards of a collection; none when it is dropped. Makes new dicts, so that readers need no lock."""
        others = {id_: value for id_, value in self._slots.items() if id_ != collection_id}
        self._slots = others | {collection_id: slots} if slots else others
        left = {key: value for key, value in self._quarantined.items() if key[0] != collection_id}
        mine = {(collection_id, number): slot for number, slot in enumerate(slots) if isinstance(slot, Quarantine)}
        self._quarantined = left | mine


_UNREADABLE = (ValueError, LookupError, msgspec.MsgspecError, IsADirectoryError, NotADirectoryError)
"""Raised when what is stored makes no sense."""


_PLAIN = (LogFault, OutOfDescriptors)
"""Errors whose text says all."""


def _quarantine(collection: Collection, number: int, error: Exception, failures: int, remedy: Remedy) -> Quarantine:
    what = "" if isinstance(error, _PLAIN) or is_damage(error) else f"{type(error).__name__}: "
    quarantine = Quarantine(collection.name, number, f"{what}{error}"[:MAX_REASON_CHARS], failures + 1, remedy)
    is_first = failures == 0
    level = logging.ERROR if is_first else logging.DEBUG  # once when it begins, not at each attempt
    trace = is_first and not isinstance(error, _PLAIN)
    text = "shard %d of collection %s is in quarantine, %s: %s"
    log.log(level, text, number, collection.name, remedy.value, quarantine.reason, exc_info=trace)
    _forget_frames(error)
    return quarantine


def _forget_frames(error: BaseException | None) -> None:
    """Clears the variables of the frames that raised: an iterator among them would keep RocksDB's lock while the error lives."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _never(task: Callable[[], None]) -> None:
    """What runs the builds of a shard that is only read."""


class StoredCollection(NamedTuple):
    """What the folder of a collection's state says: the identity of its log, the collection's name, and when it was created."""

    log: str = ""
    name: str = "?"
    created_ms: int = -1


def stored_collection(folder: Path) -> StoredCollection:
    """The collection whose state is in `folder`; without an identity when that is not known, or in another format."""
    try:
        identity = (folder / _IDENTITY).read_text(errors="replace")
        stored_format, log_, rest = identity.split(" ", 2)
        name, created_ms = rest.rsplit(" ", 1)
        found = StoredCollection(log_, name, int(created_ms))
    except (FileNotFoundError, ValueError):
        return StoredCollection()
    return found if stored_format == str(STATE_FORMAT) else found._replace(log="")


def move_to_log(folder: Path, identity: str) -> None:
    """Notes that the state in `folder`, of a collection, is also that of the log with this identity: a copy of its own."""
    stored = stored_collection(folder)
    unfinished = folder / f"{_IDENTITY}.tmp"
    unfinished.write_text(_identity(identity, stored.name, stored.created_ms))
    unfinished.rename(folder / _IDENTITY)


def _identity(log_: str, name: str, created_ms: int) -> str:
    return f"{STATE_FORMAT} {log_} {name} {created_ms}"


class AppliedPositions:
    """How far this process has applied each partition. A read that must see a write waits for its position here.

    While the process opens its state there are no positions: `get` returns none, and `covers` is always False.
    Shards in quarantine do not hold a position back; `Shards.of` refuses their collections.
    """

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._positions: Positions = {}
        self._listeners: list[Callable[[], None]] = []

    def get(self) -> Positions:
        """The next offsets by partition; empty while the state is being opened."""
        return self._positions

    def advance(self, to: Mapping[TopicPartition, int]) -> None:
        """Raises the positions; lower ones are ignored. Calls the listeners when any position changed."""
        with self._moved:
            moved = {p: offset for p, offset in to.items() if offset > self._positions.get(p, -1)}
            if not moved:
                return
            self._positions = {**self._positions, **moved}
            self._moved.notify_all()
        self._tell()

    def suspend(self) -> None:
        """Removes all positions until `restart`: the state is being opened."""
        self.restart({})

    def restart(self, positions: Positions) -> None:
        """Sets the positions; they may be lower than before."""
        with self._moved:
            self._positions = dict(positions)
            self._moved.notify_all()
        self._tell()

    def covers(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether everything below `positions` is applied."""
        done = self._positions
        return bool(done) and all(done.get(partition, 0) >= offset for partition, offset in positions.items())

    def wait(self, positions: Mapping[TopicPartition, int], timeout_s: float) -> bool:
        """Waits until everything below `positions` is applied. Returns False after the timeout."""
        with self._moved:
            return self._moved.wait_for(lambda: self.covers(positions), timeout_s)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener`, on the applying thread, after each advance."""
        self._listeners.append(listener)
