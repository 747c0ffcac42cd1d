"""What names meant at earlier instants: the collections and aliases of the catalog by stamp."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

from catalog.collection import Collection

T = TypeVar("T")


class Deleted(NamedTuple):
    """A collection as it was at last, and the stamp of its deletion."""

    collection: Collection
    stamp: int


class _Versions(Generic[T]):
    """The values of names over time; None where a name had no value."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[tuple[int, T | None]]] = {}

    def note(self, before: Mapping[str, T], after: Mapping[str, T], stamp: int) -> None:
        if before is after:
            return
        for name in before.keys() - after.keys():
            self._by_name[name].append((stamp, None))
        for name, value in after.items():
            if before.get(name) is not value:
                self._by_name.setdefault(name, []).append((stamp, value))

    def at(self, name: str, stamp: int) -> T | None:
        """The value of a name after everything up to a stamp."""
        versions = self._by_name.get(name, [])
        at = bisect_right(versions, stamp, key=lambda version: version[0])
        return versions[at - 1][1] if at else None

    def names(self, stamp: int) -> list[str]:
        """The names that had a value at a stamp."""
        return [name for name in list(self._by_name) if self.at(name, stamp) is not None]


class CatalogHistory:
    """All collections and aliases that there ever were. One thread notes, any thread asks.

    The memory is proportional to the number of changes, since the values are shared with the views of the catalog.
    """

    def __init__(self) -> None:
        self.stamp = 0
        """The stamp of the latest command."""
        self.deleted: dict[int, Deleted] = {}
        """Collections that were deleted, by id."""
        self._collections: _Versions[Collection] = _Versions()
        self._aliases: _Versions[str] = _Versions()

    def next_stamp(self, hlc: int) -> int:
        """The stamp of the next command: in the system topic, stamps ascend as in the other partitions (I4)."""
        self.stamp = max(hlc, self.stamp + 1)
        return self.stamp

    def note(
        self,
        collections: tuple[Mapping[str, Collection], Mapping[str, Collection]],
        aliases: tuple[Mapping[str, str], Mapping[str, str]],
    ) -> None:
        """Records what the latest command changed: the collections and the aliases before and after it."""
        before, after = collections
        if before is not after:
            self.deleted |= {gone.id: Deleted(gone, self.stamp) for name, gone in before.items() if name not in after}
        self._collections.note(before, after, self.stamp)
        self._aliases.note(*aliases, self.stamp)

    def names(self, stamp: int) -> list[str]:
        """The collections that there were at a stamp."""
        return self._collections.names(stamp)

    def find(self, name: str, stamp: int) -> Collection | None:
        """The collection that had this name or alias at a stamp, as it was then."""
        return self._collections.at(self._aliases.at(name, stamp) or name, stamp)
