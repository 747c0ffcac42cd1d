"""The snapshots of a running node: one at a time, asked for or by a schedule, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

from catalog.catalog import CatalogView
from journal.rocksdb import is_damage
from shard.shard import ShardClosed
from shard.shards import Shards
from snapshots.create import Creation, KnownDigests, LogState, Progress, SnapshotFailed, Stopped
from snapshots.cutter import CutRefused, LogCutter, Plan, Wanted
from snapshots.manifest import Manifest, State, all_of, summary
from snapshots.place import Place, PlaceError
from snapshots.prune import Policy, Pruned, kept, prune
from snapshots.verify import faults

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S, NOT_READY_S = 60.0, 1.0
"""The pause after a scheduled snapshot that failed, and the one while the node is not ready."""

MAX_WAITING = 8
"""Tasks that wait for the thread; more are refused."""

VERIFIED_BYTES_PER_S = 200 << 20
SCRATCH = "snapshot.tmp"
"""The folder in the data folder in which shards are captured."""


class TooManyTasks(Exception):
    """Too many tasks wait already."""


class NoSnapshot(PlaceError):
    """The place has no snapshot of this id."""


class Schedule(NamedTuple):
    """A snapshot every `every_s` seconds, after which `policy` is applied; none at all if it is 0.

    After every snapshot, also one that was asked for, the log is cut: records that are older than `journal_retention_s` go as far
    as `snapshots.cutting` allows; none if it is None.
    """

    every_s: float
    policy: Policy
    journal_retention_s: float | None = None


class Counts(NamedTuple):
    """For dashboards: the last success as Unix seconds (0 for none since the start), how long it took, what it holds and sent."""

    succeeded_at_s: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    sent_bytes: int = 0
    successes: int = 0
    failures: int = 0


class NodeSnapshots:
    """The snapshots of the node `node` at `url`. `run` is for a thread of its own, which `stop` ends; it sleeps while there is
    nothing to do. Other methods are thread-safe.
    """

    def __init__(
        self,
        url: str,
        node: str,
        data_dir: Path,
        shards: Shards,
        catalog: Callable[[], CatalogView],
        log_state: Callable[[], LogState],
        close_shards: Callable[[], None],
        is_ready: Callable[[], bool],
        schedule: Schedule,
        now_ms: Callable[[], int],
        vecraft: str,
        cutter: LogCutter,
    ) -> None:
        self.url = url
        self.counts = Counts()
        self.progress: Progress | None = None
        """That of the snapshot that is being made."""
        self.last_failure = ""
        self._node = node
        self._is_ready = is_ready
        self._schedule = schedule
        self._cutter = cutter
        self._is_cut_due = False
        self._uncut = ""
        """Why the last cut after a snapshot failed; empty after one that did not."""
        self._now_ms = now_ms
        self._vecraft = vecraft
        self._stopping = threading.Event()
        self._wakes = threading.Condition()
        self._tasks: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._place: Place | None = None
        known = KnownDigests()
        self._make: Callable[[Place], Creation] = lambda place: Creation(
            place, shards, catalog, log_state, close_shards, data_dir / SCRATCH, known, now_ms, self._stopping
        )

    # For any thread.

    def create(self) -> Future[Manifest]:
        """Begins a snapshot. The result, or SnapshotFailed or PlaceError, is in the future. Raises TooManyTasks."""
        return self._submit(self._create)

    def verify(self, snapshot_id: str) -> Future[list[str]]:
        """Reads a snapshot again; the result says what is wrong with it."""
        return self._submit(lambda: self._verify(snapshot_id))

    def prune(self, policy: Policy) -> Future[Pruned]:
        """Removes what a policy does not keep."""
        return self._submit(lambda: self._prune(policy))

    def delete(self, snapshot_id: str) -> Future[Pruned]:
        """Removes one snapshot of this node. The future raises NoSnapshot when it is not there, CutRefused when the cut log
        needs it."""
        return self._submit(lambda: self._delete(snapshot_id))

    def trim(self, retention_s: float | None, beyond: frozenset[str], dry_run: bool) -> Future[Plan]:
        """Cuts the log, or says what would go: records that are older than `retention_s`, or than the retention of the node.

        The future raises what `LogCutter.run` raises.
        """
        wanted = Wanted(self._schedule.journal_retention_s if retention_s is None else retention_s, beyond, dry_run)
        return self._submit(lambda: self._trim(wanted))

    def listed(self) -> list[Mapping[str, object]]:
        """The snapshots of all nodes at the place, the latest first; asks the place. Raises PlaceError."""
        return [self._described(manifest) for manifest in all_of(self._at())]

    def stop(self) -> None:
        """Makes `run` return soon; a snapshot that is being made stays PENDING."""
        self._stopping.set()
        with self._wakes:
            self._wakes.notify_all()

    # The thread.

    def run(self) -> None:
        """Does what is asked for, and what is scheduled, until `stop`."""
        due_s = time.monotonic() + self._first_due_s() if self._schedule.every_s else None
        while not self._stopping.is_set():
            with self._wakes:
                while not self._tasks and not self._stopping.is_set() and not _is_due(due_s):
                    self._wakes.wait(None if due_s is None else max(0.0, due_s - time.monotonic()))
                task = self._tasks.pop(0) if self._tasks else None
            if self._stopping.is_set():
                break
            if task is not None:
                _fulfil(*task)
                self._cut_when_due()
            elif due_s is not None:
                due_s = time.monotonic() + self._scheduled()
                self._cut_when_due()
        for future, _ in self._tasks:
            future.set_exception(Stopped())

    def _first_due_s(self) -> float:
        """Seconds until the first scheduled snapshot: what is left since the last one."""
        try:
            times = [each.created_ms for each in all_of(self._at(), self._node) if each.state is State.COMMITTED]
        except PlaceError:
            return RETRY_S
        passed_s = (self._now_ms() - max(times)) / 1000 if times else self._schedule.every_s
        return min(self._schedule.every_s, max(0.0, self._schedule.every_s - passed_s))

    def _scheduled(self) -> float:
        """A snapshot, and the policy after it; failures are logged. Returns the seconds until the next one."""
        if not self._is_ready():
            return NOT_READY_S
        try:
            self._create()
            self._prune(self._schedule.policy)
        except Exception as error:  # RocksDB's errors have no class of their own
            log.debug("the scheduled snapshot failed", exc_info=error)
            return RETRY_S
        return self._schedule.every_s

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._wakes:
            if self._stopping.is_set():
                raise Stopped
            if len(self._tasks) >= MAX_WAITING:
                raise TooManyTasks(f"{MAX_WAITING} tasks wait for the snapshots' thread, which is the bound")
            self._tasks.append((future, work))
            self._wakes.notify_all()
        return future

    def _create(self) -> Manifest:
        started_s, now_ms = time.monotonic(), self._now_ms()
        time_text = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        progress = self.progress = Progress(f"{time_text}-{token_hex(3)}")
        pending = Manifest(id=progress.id, node=self._node, state=State.PENDING, created_ms=now_ms, vecraft=self._vecraft)
        try:
            if not self._is_ready():
                raise SnapshotFailed("the node is not ready")
            made = self._make(self._at()).run(pending, progress)
        except Exception as error:  # RocksDB's errors have no class of their own
            self._failed(error)
            if isinstance(error, SnapshotFailed | PlaceError):
                raise
            if isinstance(error, ShardClosed | OSError) or is_damage(error):
                raise SnapshotFailed(str(error)) from error
            raise
        finally:
            self.progress = None
        seconds = time.monotonic() - started_s
        self.last_failure = ""
        self._is_cut_due = self._schedule.journal_retention_s is not None
        self.counts = self.counts._replace(
            succeeded_at_s=self._now_ms() / 1000,
            seconds=seconds,
            bytes=made.size,
            sent_bytes=progress.sent_bytes,
            successes=self.counts.successes + 1,
        )
        text = "snapshot %s: %d bytes in %d files, %d bytes of them new, in %.1f s"
        log.info(text, made.id, made.size, len(made.files), progress.sent_bytes, seconds)
        return made

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Stopped):
            return
        self.counts = self.counts._replace(failures=self.counts.failures + 1)
        if not self.last_failure:  # once when it begins, not at each attempt
            log.warning("a snapshot failed: %s", error)
        self.last_failure = str(error)

    def _trim(self, wanted: Wanted) -> Plan:
        if not self._is_ready():
            raise CutRefused("the node is not ready")
        return self._cutter.run(self._at(), wanted, self._pause_or_stop)

    def _cut_when_due(self) -> None:
        """Cuts the log once after each snapshot. A failure is logged when it begins, and when its reason changes."""
        if not self._is_cut_due or self._stopping.is_set():
            return
        self._is_cut_due = False
        try:
            self._trim(Wanted(self._schedule.journal_retention_s, dry_run=False))
            self._uncut = ""
        except Stopped:
            return
        except Exception as error:  # the snapshots go on
            if str(error) != self._uncut:
                log.warning("the log is not cut, it is tried again after the next snapshot: %s", error)
            self._uncut = str(error)

    def _pause_or_stop(self, size: int) -> bool:
        if not self._pause(size):
            raise Stopped
        return True

    def _verify(self, snapshot_id: str) -> list[str]:
        place = self._at()
        return list(faults(place, self._find(place, snapshot_id), self._pause))

    def _pause(self, size: int) -> bool:
        return not self._stopping.wait(size / VERIFIED_BYTES_PER_S)

    def _prune(self, policy: Policy) -> Pruned:
        place, now_ms = self._at(), self._now_ms()
        return self._removed(place, kept(all_of(place, self._node), policy, now_ms))

    def _delete(self, snapshot_id: str) -> Pruned:
        place = self._at()
        gone = self._find(place, snapshot_id, self._node)
        self._cutter.check_removable(place, gone)
        return self._removed(place, {each.id for each in all_of(place, self._node)} - {gone.id})

    def _removed(self, place: Place, stay: set[str]) -> Pruned:
        pruned = prune(place, self._node, stay, self._now_ms())
        if pruned.snapshots:
            log.info("%d snapshots are removed, with %d bytes", len(pruned.snapshots), pruned.bytes)
        return pruned

    def _find(self, place: Place, snapshot_id: str, node: str = "") -> Manifest:
        for manifest in all_of(place, node):
            if manifest.id == snapshot_id:
                return manifest
        raise NoSnapshot(f"there is no snapshot {snapshot_id[:64]}{' of this node' if node else ''}")

    def _at(self) -> Place:
        """The place, opened when it is needed first. Raises PlaceError."""
        if self._place is None:
            self._place = Place(self.url)
        return self._place

    def _described(self, manifest: Manifest) -> Mapping[str, object]:
        progress = self.progress
        if progress is None or progress.id != manifest.id:
            return summary(manifest)
        done = {"files": progress.files, "bytes": progress.bytes}
        return {**summary(manifest), **done, "done_files": progress.done_files, "done_bytes": progress.done_bytes}


def _is_due(due_s: float | None) -> bool:
    return due_s is not None and time.monotonic() >= due_s


def _fulfil(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
