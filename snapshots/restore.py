"""Restores a snapshot of a node: its files become the state folder of a node that is stopped.

The next start opens them as its own, and replays only what the log has after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from journal.log import Positions
from shard.files import sync
from shard.shards import STATE_FORMAT
from snapshots.manifest import FORMAT, Manifest, State, content_path, new_digest
from snapshots.place import Place, PlaceError

NOTE = "restored.json"
"""In the state folder: from which snapshot it was restored; the next start logs it."""


class Unfit(Exception):
    """A snapshot cannot be restored here; the text says why."""


class Restored(msgspec.Struct, frozen=True):
    """The note for the next start."""

    snapshot: str
    url: str
    created_ms: int


class TheLog(msgspec.Struct, frozen=True):
    """The log that the node goes on with: its identity, and the first and the next offset of its partitions."""

    identity: str
    starts: Positions
    ends: Positions


def usable(manifests: Sequence[Manifest], log: TheLog, wanted: str = "") -> Iterator[Manifest]:
    """The snapshots that can be restored, the best first: the latest. `wanted`: only the one with this id.

    Raises Unfit when there is none; the text gives the reasons.
    """
    # A restore to a past instant would choose here: the latest snapshot whose stamp is at or below it.
    reasons = {each.id: reason for each in manifests if (reason := _unfit(each, log)) is not None}
    named = [each for each in manifests if wanted in ("", each.id)]
    if not (fitting := [each for each in named if each.id not in reasons]):
        texts = [f"snapshot {each.id} {reasons[each.id]}" for each in named]
        raise Unfit("; ".join(texts) or (f"there is no snapshot {wanted}" if wanted else "there is no snapshot"))
    yield from sorted(fitting, key=lambda each: (each.stamp, each.created_ms), reverse=True)


def _unfit(manifest: Manifest, log: TheLog) -> str | None:
    """Why a snapshot cannot be restored with this log; None when it can."""
    if manifest.state is not State.COMMITTED:
        return "was never committed"
    if manifest.format != FORMAT or manifest.state_format != STATE_FORMAT:
        return f"is of another version: formats {manifest.format} and {manifest.state_format}, not {FORMAT} and {STATE_FORMAT}"
    if manifest.log != log.identity:
        return f"is of another log: {manifest.log}, not {log.identity}"
    starts, ends = ({str(partition): offset for partition, offset in at.items()} for at in (log.starts, log.ends))
    for partition, offset in manifest.needed().items():
        if offset < starts.get(partition, 0):
            return f"needs the records of {partition} from {offset} on, and the log begins at {starts[partition]}"
    for shard in (shard for part in manifest.collections for shard in part.shards):
        for partition, offset in shard.positions.items():
            if offset > ends.get(partition, 0):
                return f"holds the records of {partition} below {offset}, and the log ends at {ends.get(partition, 0)}"
    return None


def fetch(place: Place, manifest: Manifest, folder: Path, told: Callable[[int, int], None]) -> None:
    """Writes the files of a snapshot into the new folder `folder`, with the note for the next start.

    Calls `told` with the bytes written, and all. Raises PlaceError for a content that is missing or damaged; then the folder is
    not complete.
    """
    folder.mkdir(parents=True)
    done = 0
    for file in manifest.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, size = new_digest(), 0
        with path.open("xb") as out:
            for chunk in place.chunks(content_path(manifest.node, file.digest)):
                digest.update(chunk)
                out.write(chunk)
                size += len(chunk)
        if size != file.size or digest.hexdigest() != file.digest:
            raise PlaceError(f"{place.url}: {file.path} of snapshot {manifest.id} is damaged")
        sync(path)
        told(done := done + size, manifest.size)
    note = Restored(manifest.id, place.url, manifest.created_ms)
    (folder / NOTE).write_bytes(msgspec.json.encode(note))
    for inner in {path.parent for path in folder.rglob("*")}:
        sync(inner)


def take_note(folder: Path) -> Restored | None:
    """The note of a restored state folder, which is removed: it is told once. None without one."""
    path = folder / NOTE
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Restored)
        path.unlink()
    except (OSError, msgspec.MsgspecError):
        return None
    return note


def known_log(manifest: Manifest) -> Mapping[str, object]:
    """What the state folder says of its log, for `replayer.known_log`: without an owner, since it is a new state."""
    return {
        "topics": manifest.topics,
        "catalog": manifest.catalog,
        "accepted": manifest.accepted,
        "passed": manifest.applied,
        "passed_catalog": manifest.catalog,
    }
