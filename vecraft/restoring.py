"""`vecraft restore`: puts the state of a node back from a snapshot. The node must be stopped.

The files are fetched into a folder beside the state, and verified; then the state is put aside, and they take its place. The log
is not touched: the next start replays what it has after the snapshot.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from journal.log import Journal
from journal.topics import Topics
from replayer.known_log import Known, KnownLog
from replayer.loop import bounds_of
from shard.files import sync
from snapshots.manifest import Manifest, all_of
from snapshots.place import Place, PlaceError
from snapshots.restore import TheLog, Unfit, fetch, known_log, usable
from vecraft.commands import CommandError
from vecraft.recovery import ProgressLines, opened
from vecraft.roles import journal_folder
from vecraft.settings import Settings
from vecraft.state_folder import check_unused, put_aside

UNFINISHED = "state.tmp"


def restore(settings: Settings, url: str, wanted: str) -> None:
    """Puts the latest usable snapshot at `url`, or the one with the id `wanted`, into the state folder. Prints what it does.

    Raises CommandError when there is none, or the node is not stopped; then the state is as it was.
    """
    state, log = settings.data_dir / "state", journal_folder(settings)
    if settings.journal != "kafka" and not (log / "CURRENT").is_file():
        raise CommandError(f"there is no journal in {log}, and a snapshot is of one: for a log on Kafka say --journal kafka")
    topics = Topics(settings.topic_prefix, settings.preset)
    journal = opened(settings, accept_ends=False)
    try:
        check_unused(state)
        place = Place(url)
        candidates = list(usable(all_of(place), _log(journal, state, topics), wanted))
        folder = settings.data_dir / UNFINISHED
        manifest = _fetched(place, candidates, folder)
        KnownLog(folder, topics).write(msgspec.convert(known_log(manifest), Known))
        if state.exists():
            print(f"the state is put aside in {put_aside(state)}; remove it when it is not needed any more")
        folder.rename(state)
        sync(settings.data_dir)
    except (PlaceError, Unfit) as error:
        raise CommandError(str(error)) from error
    finally:
        journal.close()
    print(f"snapshot {manifest.id} is restored, with {manifest.points} points; the next start replays the rest from the log")


def _log(journal: Journal, state: Path, topics: Topics) -> TheLog:
    known = KnownLog(state, topics)
    data = topics.all().keys() - {topics.ingest, topics.dead_letters}
    if missing := sorted(data - journal.identities(list(data)).keys()):
        raise CommandError(f"the log has no topics {', '.join(missing)}: there is nothing that a snapshot could be of")
    bounds = bounds_of(journal, [*topics.data_partitions(), topics.system_partition])
    return TheLog(known.identity_in(journal), bounds.starts, bounds.ends)


def _fetched(place: Place, candidates: list[Manifest], folder: Path) -> Manifest:
    """The first of the snapshots whose files are all sound; they are in `folder` then."""
    failure = ""
    for manifest in candidates:
        shutil.rmtree(folder, ignore_errors=True)
        lines = ProgressLines(f"snapshot {manifest.id}", "bytes")
        try:
            fetch(place, manifest, folder, lines)
        except PlaceError as error:
            failure = f"snapshot {manifest.id} is passed over: {error}"
            print(failure)
        else:
            return manifest
    shutil.rmtree(folder, ignore_errors=True)
    raise CommandError(f"no snapshot is sound; {failure}")
