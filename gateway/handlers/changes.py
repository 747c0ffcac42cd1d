"""Handlers of the change feed of a collection (N4): pages, and streams of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from catalog.collection import Collection
from gateway.admission.limits import check_feed
from gateway.as_of import time_of
from gateway.dialect.answers import dumps, vectors_of
from gateway.dialect.events import Form
from gateway.dialect.feed_bodies import ChangesBody, ChangesParams
from gateway.feeds import Wanted
from gateway.followers import Follower
from gateway.reads import QUICK_POINTS
from gateway.request import ApiRequest, Response
from gateway.services import Services
from query.feed import Change, Place

STREAM_PAGE = 200
"""Changes of a page of a stream: no more of them wait for a slow reader."""

HEARTBEAT_S = 15.0
"""The longest silence of a stream."""

RETRY_MS = 1000
"""When a client of a stream that has ended should try again."""


async def changes(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The changes of a collection after a place in its feed, in the order of their versions."""
    wanted = await _wanted(request, response, services, _body(request))
    feeds = services.feeds
    with wanted.follower(services) as follower:
        if follower is None:
            told = await feeds.page(wanted.collection, wanted.place, wanted.page)
        else:
            told = await feeds.next_page(wanted.collection, wanted.place, wanted.page, follower, wanted.body.wait_ms / 1000)
    found = told.page.changes
    feeds.followers.count(events=len(found))
    response.is_large = len(found) > QUICK_POINTS
    events = await services.reads.offload(not response.is_large, lambda: [wanted.form.event(change) for change in found])
    return {"changes": events, "next": wanted.text(told.page.next), "caught_up": told.caught_up}


class _Feed(NamedTuple):
    """A feed that a request wants."""

    collection: Collection
    place: Place
    page: Wanted
    form: Form
    body: ChangesBody

    def text(self, place: Place) -> str:
        return place.text(self.form.log, self.collection.id)

    def follower(self, services: Services) -> AbstractContextManager[Follower | None]:
        """The follower of a request that waits for changes."""
        if not self.body.wait_ms:
            return nullcontext()
        return services.feeds.followers.following(services.feeds.partitions(self.collection))


def _body(request: ApiRequest) -> ChangesBody:
    return request.params.body() if isinstance(request.params, ChangesParams) else request.body


async def _wanted(request: ApiRequest, response: Response, services: Services, body: ChangesBody) -> _Feed:
    where = await services.reads.where(request, body.filter)
    with_payload = body.payload_selector(True)
    collection = await services.feeds.collection(request, response, request.path["collection_name"])
    check_feed(request, services.rates, collection, body.limit, body.filter)
    with_vector = vectors_of(body, collection)
    place = await services.feeds.place(collection, body.start, body.snapshot)
    log = services.node.replayer.log_name
    form = Form(collection.name, collection.id, log, body.envelope, with_payload, bool(with_vector), body.with_before)
    return _Feed(collection, place, Wanted(body.limit, where, with_vector), form, body)


# Streams.


async def stream(request: ApiRequest, response: Response, services: Services, last_id: str) -> AsyncIterator[bytes]:
    """The same as a stream of server-sent events, from the place `last_id` on if it is given.

    Raises for a request that is refused before anything is sent.
    """
    body = _body(request)
    if last_id:
        body.start, body.snapshot = last_id, None
    wanted = await _wanted(request, response, services, body)
    following = services.feeds.followers.following(services.feeds.partitions(wanted.collection))
    return _streamed(services, wanted, following)


async def _streamed(services: Services, wanted: _Feed, following: AbstractContextManager[Follower]) -> AsyncIterator[bytes]:
    """Pages as events, until the node stops. Raises as a page does, also when the collection is dropped."""
    feeds, place = services.feeds, wanted.place
    page = wanted.page._replace(limit=min(STREAM_PAGE, wanted.page.limit))
    caught_up, told_s = False, time.monotonic()
    with following as follower:
        yield b"retry: %d\n\n" % RETRY_MS
        while not feeds.followers.stopping:
            wait_s = told_s + HEARTBEAT_S - time.monotonic() if caught_up else 0.0
            told = await feeds.next_page(wanted.collection, place, page, follower, wait_s)
            place, found = told.page.next, told.page.changes
            text = await services.reads.offload(len(found) <= QUICK_POINTS, partial(_events, wanted.form, found))
            is_due = not found and time.monotonic() - told_s >= HEARTBEAT_S
            if is_due or (told.caught_up and not caught_up):
                tick = {"caught_up": told.caught_up, "time": time_of(place.stamp)}
                text += event_text("tick", tick, wanted.text(place))
            caught_up = caught_up or told.caught_up
            feeds.followers.count(events=len(found))
            if text:
                yield text
                told_s = time.monotonic()
    yield event_text("end", {"reason": "this node stops", "status": 503})


def _events(form: Form, found: Sequence[Change]) -> bytes:
    return b"".join(event_text("change", form.event(change), form.token(change)) for change in found)


def event_text(kind: str, data: dict[str, Any], token: str = "") -> bytes:
    """A server-sent event; with a token the client goes on after it (`Last-Event-ID`)."""
    return (f"id: {token}\n" if token else "").encode() + b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(data))
