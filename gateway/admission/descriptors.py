"""The bound of file descriptors: a collection is refused before its shards would take those that connections need."""

from __future__ import annotations

from collections.abc import Sized

from gateway.http.errors import InsufficientStorage
from shard import descriptors
from shard.descriptors import PER_SHARD


class Descriptors:
    """The descriptors of this process. `most_connections` of them are kept for connections, whether they are open or not."""

    def __init__(self, most_connections: int) -> None:
        self.doors: list[Sized] = []
        """The open connections of each event loop."""
        self._most_connections = most_connections

    def check(self, new: int, quarantined: int) -> None:
        """Raises InsufficientStorage when there is no room for so many new shards beside those in quarantine, which come back."""
        storage = descriptors.used() - sum(len(door) for door in self.doors)
        kept = self._most_connections + descriptors.spare()
        if storage + kept + (new + quarantined) * PER_SHARD > descriptors.limit():
            raise InsufficientStorage(
                f"no room for {new} new and {quarantined} quarantined shards of up to {PER_SHARD} file descriptors each: "
                f"of this node's {descriptors.limit()} storage uses {storage}, {self._most_connections} are kept for connections "
                f"and {descriptors.spare()} for growth; raise the limit of open files (`ulimit -n`), or delete collections"
            )
