"""The feed service: pages of the change feed of a collection, and the wait for the next one (N4).

Changes above the closed stamp wait, and a shard without records in all tiers does not close by itself. So whoever looks for
changes and finds some that are not closed has barriers written. They are shared by all that wait on an event loop, and their rate
has a bound; where nothing is written, none are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from catalog.collection import Collection
from gateway.as_of import parse_as_of, time_of
from gateway.barriers import Barriers
from gateway.followers import Follower, Followers
from gateway.http.errors import BadRequest, Gone, NotFound, Unavailable
from gateway.reads import WORK_S, ReadService
from gateway.request import ApiRequest, Response
from journal.hlc import millis_of, stamp_at
from journal.log import JournalError, Positions, TopicPartition
from journal.stamps import last_version
from query import feed
from query.consistency import NotCaughtUp
from query.feed import Page, Place, Vectors
from query.pinned import Pinned, all_of, pin
from shard.deadline import Deadline
from shard.filters.where import Where
from shard.local import pool_of
from shard.past import PastGone
from shard.replica import AsOf, Cursor

CLOSE_EVERY_S = 0.02
"""The shards of a collection are closed at most so often, on each event loop."""

STALE_MS = 3_600_000
"""A feed that is followed is closed when its closed stamp is so old, or a quarter of the retention: so its place advances."""

EARLIEST, NOW = "earliest", "now"


class Wanted(NamedTuple):
    """What a follower wants of each page."""

    limit: int
    where: Where | None = None
    vectors: Vectors = False


class Told(NamedTuple):
    """A page of the feed. `caught_up`: all that was applied on this node when it was asked for has been told.

    Then `positions` are the next offsets of the collection's home partitions: everything below them has been told.
    """

    page: Page
    caught_up: bool
    positions: Positions | None = None


class Closing:
    """Rounds of barriers for whole collections. Belongs to one event loop."""

    def __init__(self, barriers: Barriers, followers: Followers) -> None:
        self._barriers = barriers
        self._followers = followers
        self._next: dict[int, asyncio.Task[None]] = {}
        self._began_s: dict[int, float] = {}
        """When the last round of a collection began, of those in which it was less than CLOSE_EVERY_S ago."""

    async def close(self, collection: Collection) -> None:
        """Returns after a round that began after this call. Raises what writing a barrier or waiting for it raises."""
        if collection.id not in self._next:
            self._next[collection.id] = asyncio.get_running_loop().create_task(self._run(collection))
        await asyncio.shield(self._next[collection.id])

    async def _run(self, collection: Collection) -> None:
        try:
            await asyncio.sleep(self._began_s.get(collection.id, 0) + CLOSE_EVERY_S - time.monotonic())
        finally:
            del self._next[collection.id]
        now_s = time.monotonic()
        recent = {id_: began_s for id_, began_s in self._began_s.items() if now_s - began_s < CLOSE_EVERY_S}
        self._began_s = {**recent, collection.id: now_s}
        self._followers.count(rounds=1)
        await asyncio.gather(*(self._barriers.round(collection, shard) for shard in range(len(collection.homes))))


@dataclass(frozen=True, slots=True)
class FeedService:
    """Belongs to one event loop; `followers` are shared by all loops."""

    reads: ReadService
    followers: Followers
    closing: Closing

    def on_this_loop(self, reads: ReadService) -> FeedService:
        """The service for the running event loop."""
        return FeedService(reads, self.followers, Closing(reads.barriers, self.followers))

    def partitions(self, collection: Collection) -> list[TopicPartition]:
        """Those in which a record may concern the feed of a collection: its shards' home partitions, and the catalog's."""
        topics = self.reads.topics
        homes = {partition for home in collection.homes for partition in topics.home_partitions(home)}
        return [*sorted(homes), topics.system_partition]

    async def collection(self, request: ApiRequest, response: Response, name: str) -> Collection:
        """The collection, once this node has applied what the request's consistency level requires."""
        if request.as_of:
            raise BadRequest("as_of: a feed goes on after an instant when `from` names it")
        pinned = await self.reads.pin(request, response, name)
        kept_s = pinned.collection.config.history_retention_s
        if (self.reads.history_s if kept_s is None else kept_s) == 0:
            raise BadRequest(f"history_retention_s of collection `{name}` is 0: changes are not kept, so it has no feed")
        return pinned.collection

    async def place(self, collection: Collection, start: str, snapshot: str | None) -> Place:
        """The place that a request names by `from`, or by `snapshot=initial`. Raises BadRequest, also for one in the future."""
        if snapshot is not None and start:
            raise BadRequest("snapshot: the present state comes first, so `from` cannot be given with it")
        if snapshot is not None:
            return Place(Cursor(last_version(await self._closed_now(collection))), initial=True)
        if feed.is_place(start):
            return self._parsed(collection, start)
        if start == NOW:
            return feed.after(await self._closed_now(collection))
        if start in ("", EARLIEST):
            return await feed.earliest(await self.reads.pin_now(collection))
        clock, topics = self.reads.clock, self.reads.topics
        try:
            instant = parse_as_of(
                start, clock.physical_ms(), clock.last, topics, self.reads.replayer.log_name, lambda: collection
            )
        except BadRequest as error:
            raise BadRequest(f"from: the token of an event or of `next`, earliest, now, or an instant; {error}") from error
        if instant.positions is not None:
            raise BadRequest("from: a position is no place in a feed; use the token of an event or of `next`, or an instant")
        return feed.after(instant.stamp)

    def _parsed(self, collection: Collection, text: str) -> Place:
        clock = self.reads.clock
        try:
            place = feed.parse_place(text, self.reads.replayer.log_name, collection.id)
        except ValueError as error:
            raise BadRequest(f"from: {error}") from error
        if place.stamp > max(clock.last, stamp_at(clock.physical_ms() + clock.max_drift_ms)):
            raise BadRequest(f"from: the place is at {time_of(place.stamp)}, ahead of this node's clock")
        return place

    async def _is_to_close(self, pinned: Pinned, closed: int) -> bool:
        """Whether there are changes above the closed stamp, or it is so old that what follows it may soon not be kept."""
        kept_s = pinned.collection.config.history_retention_s
        kept_ms = 1000 * (self.reads.history_s if kept_s is None else kept_s)
        age_ms = self.reads.clock.physical_ms() - millis_of(closed)
        return age_ms > min(STALE_MS, kept_ms // 4) or await feed.is_more(pinned, closed)

    async def _closed_now(self, collection: Collection) -> int:
        """A closed stamp that is not below anything that is applied now."""
        closed, pinned = await self._pinned(collection)
        if not await self._is_to_close(pinned, closed):
            return closed
        await self._close(collection)
        return (await self._pinned(collection))[0]

    async def page(self, collection: Collection, place: Place, wanted: Wanted) -> Told:
        """The changes after a place, at most `wanted.limit`. Raises Gone when some of them are not kept any more."""
        try:
            if place.initial:
                return Told(await self._initial(collection, place, wanted), False)
            closed, pinned = await self._pinned(collection)
            page = await feed.changes(pinned, place, closed, *wanted)
            if not page.is_last:
                return Told(page, False)
            if not await self._is_to_close(pinned, closed):
                return Told(page, True, pinned.positions)
            if page.changes:
                return Told(page, False)
            await self._close(collection)
            closed, pinned = await self._pinned(collection)
            page = await feed.changes(pinned, place, closed, *wanted)
            return Told(page, page.is_last)
        except PastGone as error:
            raise await self._gone(collection, place) from error

    async def _initial(self, collection: Collection, place: Place, wanted: Wanted) -> Page:
        reads = self.reads
        if min(await all_of((replica.closed() for replica in reads.replicas(collection)), Deadline(WORK_S))) < place.stamp:
            await self._close(collection)  # as on a node that has not seen what closed them on another one
        as_of, pool = AsOf(collection, place.stamp), pool_of(reads.executor)
        pinned = await pin(collection, reads.replicas(collection), {}, 0, WORK_S, pool, as_of=as_of)
        return await feed.initial(pinned, place, *wanted)

    async def next_page(self, collection: Collection, place: Place, wanted: Wanted, follower: Follower, wait_s: float) -> Told:
        """As `page`, but waits for the first change, for `wait_s` at most."""
        until_s, seen = time.monotonic() + wait_s, None
        while True:
            follower.look()
            present = self.present(collection)
            moment = await self._moment(present)
            if moment == seen:  # the record was for another collection that has a partition in common with this one
                await asyncio.sleep(min(CLOSE_EVERY_S, max(0.0, until_s - time.monotonic())))
            else:
                told = await self.page(present, place, wanted)
                place, seen = told.page.next, moment if told.caught_up else None
            left_s = until_s - time.monotonic()
            if told.page.changes or left_s <= 0 or follower.is_told or self.followers.stopping:
                return told
            if told.caught_up:
                await follower.wait(left_s)

    def present(self, collection: Collection) -> Collection:
        """The collection as it is now. Raises NotFound when it was dropped."""
        if (present := self.reads.catalog.by_id.get(collection.id)) is None:
            raise NotFound(f"Not found: Collection `{collection.name}` was deleted")
        return present

    async def _moment(self, collection: Collection) -> tuple[int, list[Hashable]]:
        """The closed stamp and the versions of the views: when they are the same again, nothing has changed meanwhile."""
        closed, pinned = await self._pinned(collection)
        return closed, pinned.versions

    async def _pinned(self, collection: Collection) -> tuple[int, Pinned]:
        """The least closed stamp of the shards, and views that contain everything up to it, since they were taken later."""
        replicas = self.reads.replicas(collection)
        closed = await all_of((replica.closed() for replica in replicas), Deadline(WORK_S))
        return min(closed), await self.reads.pin_now(collection)

    async def _close(self, collection: Collection) -> None:
        try:
            await self.closing.close(collection)
        except (JournalError, NotCaughtUp) as error:
            raise Unavailable(f"the latest changes are not final yet, and cannot be made so: {error}", 1.0) from error

    async def _gone(self, collection: Collection, place: Place) -> Gone:
        oldest = await feed.earliest(await self.reads.pin_now(collection))
        token = oldest.text(self.reads.replayer.log_name, collection.id)
        return Gone(
            f"from: the changes after {time_of(place.stamp)} are not all kept any more. The oldest place is {token} "
            f"({time_of(oldest.stamp)}). To begin anew with the present state, use snapshot=initial instead of `from`"
        )
