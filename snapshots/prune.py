"""Removes snapshots: which ones a policy keeps, and the contents that none of those left names."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Sequence
from typing import NamedTuple

from snapshots.manifest import FILES, Manifest, State, path_of, paths, read
from snapshots.place import Item, Place

DAY_MS = 24 * 3600 * 1000

UNFINISHED_MS = DAY_MS
"""Age at which a snapshot that is still PENDING is removed, and a content that no snapshot names."""


class Policy(NamedTuple):
    """Which committed snapshots stay: the latest `last`, and of each of the latest `days` days (of UTC) the last one."""

    last: int
    days: int = 0


class Pruned(NamedTuple):
    """What was removed."""

    snapshots: list[str]
    files: int
    bytes: int


def kept(snapshots: Sequence[Manifest], policy: Policy, now_ms: int) -> set[str]:
    """The ids of the snapshots that stay. The latest committed one always does; a pending one until it is UNFINISHED_MS old."""
    committed = [each for each in snapshots if each.state is State.COMMITTED]
    committed.sort(key=lambda each: (each.created_ms, each.id))
    stay = {each.id for each in committed[-max(1, policy.last) :]}
    by_day = {each.created_ms // DAY_MS: each.id for each in committed}
    stay |= {id_ for day, id_ in by_day.items() if now_ms // DAY_MS - day < policy.days}
    return stay | {each.id for each in snapshots if each.state is State.PENDING and now_ms - each.created_ms < UNFINISHED_MS}


def prune(place: Place, node: str, stay: AnyCollection[str], now_ms: int) -> Pruned:
    """Removes the snapshots of a node but those that `stay`, and then contents that are named by none.

    No snapshot of this node may be made meanwhile. A manifest that cannot be read stops it, since its contents are not known.
    """
    manifests = [read(place, path) for path in paths(place, node)]
    gone = [manifest for manifest in manifests if manifest.id not in stay]
    place.remove([path_of(node, manifest.id) for manifest in gone])
    named = {digest for manifest in manifests if manifest.id in stay for digest in manifest.contents()}
    freed = {digest for manifest in gone for digest in manifest.contents()} - named
    unnamed = [item for item in place.items(f"{node}/{FILES}") if _is_free(item, named, freed, now_ms)]
    place.remove([item.path for item in unnamed])
    return Pruned([manifest.id for manifest in gone], len(unnamed), sum(item.size for item in unnamed))


def _is_free(item: Item, named: set[str], freed: set[str], now_ms: int) -> bool:
    """Whether a content can go: what an interrupted snapshot has sent stays for a while, since the next one needs it."""
    digest = item.path.rpartition("/")[2]
    return digest in freed or (digest not in named and now_ms - item.modified.timestamp() * 1000 > UNFINISHED_MS)
