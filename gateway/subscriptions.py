"""The subscription service: delivers the changes of a feed, and notes how far a subscription is settled (N9).

What is durable is in the log: definitions and changes put aside are records of the catalog. How far a subscription is settled is
committed for a consumer group, at most once a second: the epoch of the commit is the version below which all is settled, and its
offsets are those up to which that is everything, so that ordinary tools show the lag. A log on Kafka forgets a group that has not
committed for a week, so the catalog has a place too, which is at most an hour of changes older.

What is in flight is in the memory of the node that has delivered it. After a crash, or through another node, what was not settled
is delivered again: at least once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from catalog.collection import Collection
from catalog.subscriptions import Parked, Subscription
from gateway.deliveries import Deliveries, Delivery, Key, Limits
from gateway.feeds import FeedService, Told, Wanted
from gateway.followers import Follower
from gateway.http.errors import ApiError, BadRequest, Conflict, NotFound
from gateway.request import ApiRequest, Response
from gateway.writes import WriteService
from journal.hlc import millis_of
from journal.ids import decode_id
from journal.log import Journal, JournalError, Positions, TopicPartition
from journal.records import MoveSubscription, ParkedEvent, ParkEvents, UnparkEvents
from journal.stamps import Version, stamp_of
from journal.writer import Origin
from query import feed
from query.feed import Change, Place
from shard.filters.where import Where
from shard.past import PastGone
from shard.replica import Cursor

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0
LOOK_EVERY_S = 1.0
"""At most so often it is asked what other nodes have committed."""

MOVE_EVERY_MS = 3_600_000
"""When so much time lies between the place in the catalog and the settled one, the catalog gets the latter."""


class State:
    """A subscription on this node. Shared by the event loops."""

    def __init__(self, settled: Version, offsets: Positions) -> None:
        self.deliveries = Deliveries(settled)
        self.stopped = ""
        """Why nothing is delivered; empty when it is."""
        self.followers: set[Follower] = set()
        self.offsets = offsets
        """What is to be committed next."""
        self.caught_up: tuple[Version, Positions] | None = None
        """When all below this version is settled, everything below these offsets is."""
        self.looked_s = self.committed_s = time.monotonic()
        self.committing: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionService:
    """Belongs to one event loop; `states` and `lock` are shared by all loops."""

    feeds: FeedService
    writes: WriteService
    journal: Journal
    states: dict[int, State] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on_this_loop(self, feeds: FeedService, writes: WriteService) -> SubscriptionService:
        """The service for the running event loop."""
        return SubscriptionService(feeds, writes, self.journal, self.states, self.lock)

    async def find(self, request: ApiRequest, name: str) -> Subscription:
        """The subscription of this name, after catching up with the catalog if it is not known. Raises NotFound."""
        reads = self.feeds.reads
        if name not in reads.catalog.subscriptions:
            await reads.catch_up_catalog(request)
        if (found := reads.catalog.subscriptions.get(name)) is None:
            raise NotFound(f"Not found: subscription `{name[:64]}` doesn't exist!")
        return found

    def collection(self, subscription: Subscription) -> Collection:
        """The collection whose changes are delivered. Raises NotFound when it was dropped."""
        if (found := self.feeds.reads.catalog.by_id.get(subscription.config.of)) is None:
            raise NotFound(f"Not found: Collection `{subscription.config.collection}` of the subscription was deleted")
        return found

    def group(self, subscription: Subscription) -> str:
        """The consumer group that shows the lag."""
        return f"{self.feeds.reads.topics.prefix}.subscription.{subscription.name}-{subscription.id}"

    async def state(self, subscription: Subscription) -> State:
        """The state on this node, with what was settled through other nodes. Raises JournalError when the log cannot be asked."""
        known = self.states.get(subscription.id)
        if known is not None and time.monotonic() - known.looked_s < LOOK_EVERY_S:
            return known
        settled, offsets = await self._committed(subscription)
        with self.lock:
            gone = self.states.keys() - {each.id for each in self.feeds.reads.catalog.subscriptions.values()}
            for id_ in gone - {subscription.id}:
                del self.states[id_]
            state = self.states.setdefault(subscription.id, State(settled, offsets))
        if settled > state.deliveries.settled:
            state.deliveries.settled_elsewhere(settled)
        state.looked_s = time.monotonic()
        return state

    def counts(self, state: State) -> tuple[int, int]:
        """How many changes are in flight on this node, and how many wait to be delivered."""
        return state.deliveries.counts(time.monotonic())

    # Delivery.

    async def fetch(
        self, request: ApiRequest, response: Response, subscription: Subscription, most: int, wait_s: float
    ) -> list[Delivery]:
        """Delivers up to `most` changes; waits for the first one for `wait_s` at most. Raises Conflict when it has stopped."""
        collection, state = self.collection(subscription), await self.state(subscription)
        limits, until_s = limits_of(subscription), time.monotonic() + wait_s
        with self.feeds.followers.following(self.feeds.partitions(collection)) as follower:
            state.followers.add(follower)
            try:
                while True:
                    follower.look()
                    follower.is_told = False
                    await self._give_up(request, response, subscription, state)
                    if found := state.deliveries.take(most, time.monotonic(), limits):
                        return found
                    left_s = until_s - time.monotonic()
                    wait_s = max(0.0, min(left_s, state.deliveries.next_due_s() - time.monotonic()))
                    await self._read_more(subscription, collection, state, follower, wait_s)
                    if left_s <= 0 or self.feeds.followers.stopping:
                        return state.deliveries.take(most, time.monotonic(), limits)
            finally:
                state.followers.discard(follower)

    async def _read_more(
        self, subscription: Subscription, collection: Collection, state: State, follower: Follower, wait_s: float
    ) -> None:
        """Reads changes from the feed while there is room for them; else waits until some are settled."""
        room = state.deliveries.room(limits_of(subscription))
        if not room:
            return await follower.wait(wait_s)
        start = state.deliveries.read_to
        condition = subscription.config.filter
        where = None if condition is None else Where(msgspec.json.encode(condition))  # compiled once
        wanted = Wanted(room, where, subscription.config.with_vector)
        told = await self.feeds.next_page(collection, start, wanted, follower, wait_s)
        if state.deliveries.offer(start, told.page):
            self._note_positions(state, told)
            self.commit_soon(subscription, state)

    def _note_positions(self, state: State, told: Told) -> None:
        if told.positions and (state.caught_up is None or state.caught_up[0] <= state.deliveries.settled):
            state.caught_up = told.page.next.cursor.version, told.positions

    async def _give_up(self, request: ApiRequest, response: Response, subscription: Subscription, state: State) -> None:
        """Parks or skips what was delivered too often in vain. Raises Conflict when the subscription has stopped, or stops."""
        failed = state.deliveries.failed(time.monotonic(), limits_of(subscription))
        if failed and subscription.config.on_failure == "stop" and not state.stopped:
            change, attempt = failed[0]
            state.stopped = f"the change of point {decode_id(change.id)} was delivered {attempt} times and not acknowledged"
        if state.stopped:
            raise Conflict(f"subscription `{subscription.name}` has stopped: {state.stopped}; go on with POST …/resume")
        if not failed:
            return
        keys = [delivery.change.place.cursor for delivery in failed]
        if subscription.config.on_failure == "park":
            events = [ParkedEvent(change.version, change.id, attempt) for change, attempt in failed]
            try:
                await self._command(request, response, ParkEvents(subscription.name, subscription.id, events))
            except BadRequest as error:
                state.stopped = str(error)
                raise Conflict(f"subscription `{subscription.name}` has stopped: {error}") from error
        state.deliveries.settle(keys)
        self.commit_soon(subscription, state)

    # Settling.

    async def acknowledge(
        self, request: ApiRequest, response: Response, subscription: Subscription, keys: Sequence[Key]
    ) -> list[Key]:
        """Settles changes. Returns those that were in flight on this node."""
        state = await self.state(subscription)
        open_, replayed = state.deliveries.settle(keys)
        if replayed:
            await self.discard(request, response, subscription, replayed)
        self.commit_soon(subscription, state)
        self.feeds.followers.tell(list(state.followers))
        return open_

    async def refuse(self, subscription: Subscription, keys: Sequence[Key], delay_s: float) -> list[Key]:
        """Has changes delivered again after a delay, or given up. Returns those that were in flight on this node."""
        state = await self.state(subscription)
        refused = state.deliveries.retry(keys, time.monotonic() + delay_s)
        self.feeds.followers.tell(list(state.followers))
        return refused

    async def resume(self, subscription: Subscription) -> None:
        """Goes on after a stop."""
        state = await self.state(subscription)
        state.stopped = ""
        state.deliveries.again()

    async def replay(self, subscription: Subscription, parked: Sequence[Parked]) -> list[Parked]:
        """Delivers changes again that were put aside, and stay so until they are acknowledged.

        Returns those that are not kept any more.
        """
        collection, state = self.collection(subscription), await self.state(subscription)
        found: list[Change] = []
        gone: list[Parked] = []
        for one in parked:
            change = await self._change(collection, one.event, subscription)
            if change is None:
                gone.append(one)
            else:
                found.append(change)
        state.deliveries.replay(found)
        self.feeds.followers.tell(list(state.followers))
        return gone

    async def discard(self, request: ApiRequest, response: Response, subscription: Subscription, keys: Sequence[Key]) -> None:
        """Removes changes that were put aside."""
        events = [ParkedEvent(key.version, key.id, 0) for key in keys]
        await self._command(request, response, UnparkEvents(subscription.name, subscription.id, events))

    async def _change(self, collection: Collection, event: ParkedEvent, subscription: Subscription) -> Change | None:
        """A change as the feed tells it; None when it is not kept any more."""
        before = Place(Cursor(event.version, _before(event.point)))
        pinned = await self.feeds.reads.pin_now(collection)
        vectors = subscription.config.with_vector
        try:
            page = await feed.changes(pinned, before, stamp_of(event.version), 1, None, vectors)
        except PastGone:
            return None
        found = page.changes[:1]
        return found[0] if found and found[0].place.cursor == Cursor(event.version, event.point) else None

    async def _command(self, request: ApiRequest, response: Response, operation: ParkEvents | UnparkEvents) -> None:
        own = msgspec.structs.replace(request, origin=Origin(request.origin.id))
        await self.writes.command(own, response, operation)

    # How far it is settled.

    async def _committed(self, subscription: Subscription) -> tuple[Version, Positions]:
        """The version below which all is settled, and the committed offsets."""
        homes = self._homes(subscription)
        commits = await self.feeds.reads.offload(False, partial(self.journal.commits, self.group(subscription), homes))
        settled = max([subscription.settled, *(commit.epoch for commit in commits.values())])
        return settled, {home: commits[home].offset if home in commits else 0 for home in homes}

    def _homes(self, subscription: Subscription) -> list[TopicPartition]:
        collection = self.feeds.reads.catalog.by_id.get(subscription.config.of)
        return [] if collection is None else self.feeds.partitions(collection)[:-1]

    def commit_soon(self, subscription: Subscription, state: State) -> None:
        """Commits what is settled, now or in a while. What a crash prevents is delivered again."""
        if state.caught_up is not None and state.caught_up[0] <= state.deliveries.settled:
            state.offsets = state.caught_up[1]
        with self.lock:
            if state.committing is None:
                state.committing = asyncio.get_running_loop().create_task(self._commit(subscription, state))

    async def _commit(self, subscription: Subscription, state: State) -> None:
        try:
            await asyncio.sleep(state.committed_s + COMMIT_EVERY_S - time.monotonic())
        finally:
            state.committing = None
        state.committed_s = time.monotonic()
        settled, offsets = state.deliveries.settled, state.offsets
        try:
            others, known = await self._committed(subscription)
            if settled < others or (settled == others and known == offsets) or not offsets:
                return
            commit = partial(self.journal.commit, self.group(subscription), offsets, dict.fromkeys(offsets, settled))
            await self.feeds.reads.offload(False, commit)
            present = self.feeds.reads.catalog.subscriptions.get(subscription.name, subscription)
            if millis_of(stamp_of(settled)) - millis_of(stamp_of(present.settled)) > MOVE_EVERY_MS:
                move = MoveSubscription(subscription.name, subscription.id, settled)
                self.writes.writer.write_catalog(move, Origin(""))
        except (JournalError, ApiError) as error:
            log.warning("what is settled of subscription %s is not committed: %s", subscription.name, error)


def limits_of(subscription: Subscription) -> Limits:
    """The limits of the deliveries of a subscription."""
    config = subscription.config
    return Limits(config.max_in_flight, config.ack_timeout_ms / 1000, config.max_attempts)


def _before(point_id: bytes) -> bytes:
    """Bytes that are below an id and not below any lower one."""
    *rest, last = point_id
    return bytes(rest) if last == 0 else bytes([*rest, last - 1]) + b"\xff" * 600
