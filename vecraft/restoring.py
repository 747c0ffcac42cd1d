"""`vecraft restore`: puts the state of a node back from a snapshot. The node must be stopped.

The files are fetched into a folder beside the state, and verified; then the state is put aside, and they take its place. The log
is not touched: the next start replays what it has after the snapshot.
"""

from __future__ import annotations

from journal.topics import Topics
from snapshots.manifest import all_of
from snapshots.place import Place, PlaceError
from snapshots.restore import Unfit, usable
from vecraft.commands import CommandError
from vecraft.recovery import ProgressLines, opened
from vecraft.roles import journal_folder
from vecraft.settings import Settings
from vecraft.start_from_snapshot import UNFINISHED, fetched, log_of, put_in_place
from vecraft.state_folder import check_unused


def restore(settings: Settings, url: str, wanted: str) -> None:
    """Puts the latest usable snapshot at `url`, or the one with the id `wanted`, into the state folder. Prints what it does.

    Raises CommandError when there is none, or the node is not stopped; then the state is as it was.
    """
    state, folder = settings.data_dir / "state", journal_folder(settings)
    if settings.journal != "kafka" and not (folder / "CURRENT").is_file():
        raise CommandError(f"there is no journal in {folder}, and a snapshot is of one: for a log on Kafka say --journal kafka")
    topics = Topics(settings.topic_prefix, settings.preset)
    journal = opened(settings, accept_ends=False)
    try:
        check_unused(state)
        place = Place(url)
        candidates = list(usable(all_of(place), log_of(journal, state, topics), wanted))
        unfinished = settings.data_dir / UNFINISHED
        manifest = fetched(place, candidates, unfinished, print, ProgressLines("fetching the snapshot", "bytes"))
        if (aside := put_in_place(unfinished, state, topics, manifest)) is not None:
            print(f"the state is put aside in {aside}; remove it when it is not needed any more")
    except (PlaceError, Unfit) as error:
        raise CommandError(str(error)) from error
    finally:
        journal.close()
    print(f"snapshot {manifest.id} is restored, with {manifest.points} points; the next start replays the rest from the log")
