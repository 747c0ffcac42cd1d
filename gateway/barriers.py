"""Barriers: they close the partitions of a shard, so that the outcome of writes with conditions becomes final (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from catalog.collection import Collection
from journal.topics import TIERS

WriteBarriers = Callable[[Collection, int, list[int]], Awaitable[None]]
"""(collection, shard, tiers): writes a barrier to the shard's home partition in each tier; returns when all are applied here."""


@dataclass(slots=True)
class _Rounds:
    """The rounds of one shard: one runs, and one that has not begun collects requests."""

    running: asyncio.Task[None] | None = None
    next: asyncio.Task[None] | None = None
    tiers: set[int] = field(default_factory=set)


class Barriers:
    """Rounds of barriers. Requests for one shard that wait at the same time share a round. Belongs to one event loop."""

    def __init__(self, write: WriteBarriers) -> None:
        self._write = write
        self._shards: dict[tuple[int, int], _Rounds] = {}

    async def round(self, collection: Collection, shard: int, tier: int | None = None) -> None:
        """Returns after a round that began after this call, with barriers in all tiers but the caller's own, if it has one.

        The caller's record itself closes the partition of its own tier. Raises what writing a barrier or waiting for it raises.
        """
        key = (collection.id, shard)
        rounds = self._shards.setdefault(key, _Rounds())
        rounds.tiers.update(other for other in TIERS if other != tier)
        if rounds.next is None:
            rounds.next = asyncio.get_running_loop().create_task(self._run(collection, shard, rounds))
        await asyncio.shield(rounds.next)

    async def _run(self, collection: Collection, shard: int, rounds: _Rounds) -> None:
        if rounds.running is not None:
            await asyncio.wait([rounds.running])
        rounds.running, rounds.next = rounds.next, None
        tiers, rounds.tiers = sorted(rounds.tiers), set()
        try:
            await self._write(collection, shard, tiers)
        finally:
            rounds.running = None
            if rounds.next is None:
                self._shards.pop((collection.id, shard), None)
