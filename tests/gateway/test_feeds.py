"""How far a feed may be told: what is not closed in every shard, or is not in the views yet, waits (I7, N4)."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.feeds import CLOSE_EVERY_S, Closing, FeedService
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
    """Counts the rounds, which take a while."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    async def round(self, collection: object, shard: int) -> None:
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)


def test_those_who_want_a_collection_closed_share_rounds_of_a_bounded_rate() -> None:
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

    asyncio.run(many())
    assert len(barriers.begun) == 3
    pauses = [later - sooner for sooner, later in zip(barriers.begun, barriers.begun[1:], strict=False)]
    assert all(pause > 0.9 * CLOSE_EVERY_S for pause in pauses), "a lower bound, whatever the machine does"
