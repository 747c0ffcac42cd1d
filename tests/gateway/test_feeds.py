"""How far a feed may be told: what is not closed in every shard, or is not in the views yet, waits (I7, N4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.feeds import Closing, FeedService
from gateway.followers import Followers


class Shards:
    """Three shards, closed up to different stamps; notes in which order it is asked."""

    def __init__(self, *closed: int) -> None:
        self.asked: list[str] = []
        self._closed = closed

    def replicas(self, collection: object) -> list[Any]:
        return [self.Replica(self, stamp) for stamp in self._closed]

    async def pin_now(self, collection: object) -> str:
        self.asked.append("pin")
        return "pinned"

    class Replica:
        def __init__(self, shards: Shards, stamp: int) -> None:
            self._shards, self._stamp = shards, stamp

        def closed(self) -> int:
            self._shards.asked.append("closed")
            return self._stamp


def test_the_least_closed_stamp_counts_and_is_asked_before_the_views_are_taken() -> None:
    shards: Any = Shards(9, 5, 7)
    unused: Any = None
    service = FeedService(shards, unused, unused)
    assert asyncio.run(service._pinned(unused)) == (5, "pinned")
    assert shards.asked == ["closed", "closed", "closed", "pin"]


class Barriers:
    """Counts the rounds."""

    def __init__(self) -> None:
        self.rounds = 0

    async def round(self, collection: object, shard: int) -> None:
        self.rounds += 1


def test_those_who_want_a_collection_closed_share_rounds_of_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    class Collection:
        id = 1
        homes = ((0, 0, 0, 0),)

    class Applied:
        def listen(self, listener: object) -> None: ...

    barriers, collection, applied, unused = Barriers(), Collection(), Applied(), None

    async def many() -> None:
        closing = Closing(barriers, Followers(applied, 1, unused))  # type: ignore[arg-type]
        for _ in range(3):
            await asyncio.gather(*(closing.close(collection) for _ in range(50)))  # type: ignore[arg-type]

    monkeypatch.setattr("gateway.feeds.CLOSE_EVERY_S", 3600.0)
    monkeypatch.setattr(asyncio, "sleep", pause)
    asyncio.run(many())
    assert barriers.rounds == len(pauses) == 3
    assert pauses[0] < 3000 < pauses[1], "the first one begins at once, the next ones wait"
    assert 3000 < pauses[2] <= 3600
