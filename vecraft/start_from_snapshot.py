"""How a snapshot becomes the state of a node: by `vecraft restore`, or by the node itself at its start."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from journal.log import Journal, JournalError
from journal.topics import Topics
from replayer.known_log import Known, KnownLog
from replayer.loop import bounds_of
from shard.files import sync
from snapshots.manifest import Manifest, all_of
from snapshots.place import Place, PlaceError
from snapshots.restore import TheLog, Unfit, fetch, known_log, take_note, usable
from vecraft.commands import CommandError
from vecraft.state_folder import put_aside

log = logging.getLogger("vecraft")

UNFINISHED = "state.tmp"


class StartFromSnapshot:
    """What a node does that has no state, or one from which the log does not lead on: it takes the latest usable snapshot.

    Nothing is done without a `url`. A fetch ends soon after `is_stopping`.
    """

    def __init__(self, url: str, state: Path, journal: Journal, topics: Topics, is_stopping: Callable[[], bool]) -> None:
        self._url = url
        self._state = state
        self._journal = journal
        self._topics = topics
        self._is_stopping = is_stopping

    def __call__(self, reason: str, is_needed: bool) -> bool:
        """See `Replayer.restore`."""
        if not self._url:
            return False
        unfinished = self._state.with_name(UNFINISHED)
        try:
            place = Place(self._url)
            candidates = list(usable(all_of(place), log_of(self._journal, self._state, self._topics)))
            manifest = fetched(place, candidates, unfinished, log.warning, self._check)
        except PlaceError as error:
            if is_needed:
                raise JournalError(f"{reason}, and the snapshots cannot be read: {error}") from error
            log.warning("%s, and the snapshots cannot be read: %s", reason, error)
            return False
        except (CommandError, Unfit) as error:
            log.log(logging.ERROR if is_needed else logging.INFO, "%s, and no snapshot can be used: %s", reason, error)
            return False
        aside = put_in_place(unfinished, self._state, self._topics, manifest)
        take_note(self._state)
        log.info("%s: it begins with snapshot %s of %s, and replays the rest", reason, manifest.id, self._url)
        if aside is not None:
            log.warning("the state of before is put aside in %s; remove it when it is not needed any more", aside)
        return True

    def _check(self, done: int, size: int) -> None:
        if self._is_stopping():
            raise JournalError("stopped while a snapshot was fetched")


def log_of(journal: Journal, state: Path, topics: Topics) -> TheLog:
    """The log, as snapshots are compared with it. Raises CommandError when it lacks topics, JournalError."""
    data = topics.all().keys() - {topics.ingest, topics.dead_letters}
    if missing := sorted(data - journal.identities(list(data)).keys()):
        raise CommandError(f"the log has no topics {', '.join(missing)}: there is nothing that a snapshot could be of")
    bounds = bounds_of(journal, [*topics.data_partitions(), topics.system_partition])
    return TheLog(KnownLog(state, topics).identity_in(journal), bounds.starts, bounds.ends)


def fetched(
    place: Place,
    candidates: Sequence[Manifest],
    folder: Path,
    tell: Callable[[str], object],
    progress: Callable[[int, int], None],
) -> Manifest:
    """The first of the snapshots whose files are all sound; they are in `folder` then. Raises CommandError when none is.

    Calls `tell` with why one is passed over, `progress` with the bytes that are fetched, and all; what that raises ends it.
    """
    failure = ""
    for manifest in candidates:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fetch(place, manifest, folder, progress)
        except PlaceError as error:
            failure = f"snapshot {manifest.id} is passed over: {error}"
            tell(failure)
        else:
            return manifest
    shutil.rmtree(folder, ignore_errors=True)
    raise CommandError(f"no snapshot is sound; {failure}")


def put_in_place(folder: Path, state: Path, topics: Topics, manifest: Manifest) -> Path | None:
    """Makes the files of a snapshot, in `folder`, the state of the same node. Returns where a state of before is now.

    A crash in between leaves no state, so that the next start takes a snapshot again, or replays.
    """
    owner = KnownLog(state, topics).known.owner
    known = msgspec.structs.replace(msgspec.convert(known_log(manifest), Known), owner=owner)
    KnownLog(folder, topics).write(known)
    aside = None
    if any(path.is_dir() for path in state.glob("*")):
        aside = put_aside(state)
    else:
        shutil.rmtree(state, ignore_errors=True)
    folder.rename(state)
    sync(state.parent)
    return aside
