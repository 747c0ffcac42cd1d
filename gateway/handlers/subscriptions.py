"""Handlers of the subscriptions of change feeds (`/subscriptions`, N9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from catalog.subscriptions import Parked, Subscription, SubscriptionConfig, check_subscription_name
from gateway.as_of import time_of
from gateway.deliveries import Key
from gateway.dialect.events import Form
from gateway.dialect.feed_bodies import FetchBody, NackBody, ParkedBody, SubscriptionBody, TokensBody
from gateway.http.errors import BadRequest, NotFound, Unavailable
from gateway.reads import QUICK_POINTS
from gateway.request import ApiRequest, Response
from gateway.services import Services
from journal.hlc import stamp_at
from journal.ids import decode_id
from journal.log import JournalError
from journal.records import DeleteSubscription, PutSubscription
from journal.stamps import stamp_of
from query.feed import Place, parse_place
from shard.contract import name_error
from shard.replica import Cursor

MAX_REPLAYED = 100
RETRY_S = 1.0

Answer = dict[str, Any]


async def list_all(request: ApiRequest, response: Response, services: Services) -> Answer:
    """All subscriptions, with their state on this node."""
    await services.reads.catch_up_catalog(request)
    known = services.reads.catalog.subscriptions.values()
    return {"subscriptions": [await _described(services, subscription) for subscription in known]}


async def show(request: ApiRequest, response: Response, services: Services) -> Answer:
    """A subscription, with its state on this node."""
    return await _described(services, await _found(request, services))


async def put(request: ApiRequest, response: Response, services: Services) -> bool:
    """Adds a subscription, or changes how it delivers from now on."""
    body: SubscriptionBody = request.body
    check_subscription_name(request.path["name"])
    await services.reads.where(request, body.filter)
    collection = await services.feeds.collection(request, response, body.collection)
    for name in body.with_vector if isinstance(body.with_vector, list) else ():
        if error := name_error(collection, name):
            raise BadRequest(error)
    place = await services.feeds.place(collection, body.start, None)
    if place.initial:
        raise BadRequest("from: a subscription cannot begin within the initial state")
    given = {name: getattr(body, name) for name in body.__struct_fields__ if name not in ("collection", "start", "filter")}
    condition = None if body.filter is None else msgspec.to_builtins(body.filter)
    config = SubscriptionConfig(
        collection=collection.name, of=collection.id, since=place.cursor.version, filter=condition, **given
    )
    await services.writes.command(request, response, PutSubscription(request.path["name"], msgspec.json.encode(config)))
    return True


async def delete(request: ApiRequest, response: Response, services: Services) -> bool:
    """Deletes a subscription, its place and its parked changes."""
    await services.writes.command(request, response, DeleteSubscription(request.path["name"]))
    return True


async def fetch(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Delivers changes. Each must be acknowledged, or it is delivered again."""
    body: FetchBody = request.body
    subscription = await _found(request, services)
    form = _form(services, subscription)
    found = await _asked(services.subscriptions.fetch(request, response, subscription, body.limit, body.wait_ms / 1000))
    services.feeds.followers.count(events=len(found))
    response.is_large = len(found) > QUICK_POINTS

    def events() -> list[Answer]:
        return [
            {"token": form.token(delivery.change), "attempt": delivery.attempt, "event": form.event(delivery.change)}
            for delivery in found
        ]

    return {"deliveries": await services.reads.offload(not response.is_large, events)}


async def ack(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Acknowledges delivered changes. `unknown` are those that are not in flight on this node, as after a restart."""
    subscription = await _found(request, services)
    keys = _keys(services, subscription, request.body)
    settled = await _asked(services.subscriptions.acknowledge(request, response, subscription, list(keys)))
    return _answer(settled, keys, "settled")


async def nack(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Has delivered changes delivered again, or given up when they were delivered often enough."""
    body: NackBody = request.body
    subscription = await _found(request, services)
    keys = _keys(services, subscription, body)
    refused = await _asked(services.subscriptions.refuse(subscription, list(keys), body.delay_ms / 1000))
    return _answer(refused, keys, "refused")


async def resume(request: ApiRequest, response: Response, services: Services) -> bool:
    """Goes on with a subscription that has stopped, with all its attempts."""
    await _asked(services.subscriptions.resume(await _found(request, services)))
    return True


async def parked(request: ApiRequest, response: Response, services: Services) -> Answer:
    """The changes that were delivered too often in vain, the first in the order of the feed first."""
    await services.reads.catch_up_catalog(request)
    subscription = await _found(request, services)
    return {"parked": [_parked(services, subscription, one) for one in _in_order(subscription.parked)]}


async def replay(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Delivers parked changes again. They stay parked until they are acknowledged; `gone` are those not kept any more."""
    subscription, chosen = await _chosen(request, services)
    if len(chosen) > MAX_REPLAYED:
        raise BadRequest(f"tokens: {len(chosen)} changes, the bound is {MAX_REPLAYED} at a time")
    gone = await _asked(services.subscriptions.replay(subscription, chosen))
    tokens = [_token(services, subscription, one) for one in gone]
    return {"replayed": len(chosen) - len(gone), "gone": tokens}


async def discard(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Forgets parked changes."""
    subscription, chosen = await _chosen(request, services)
    if chosen:
        keys = [Cursor(one.event.version, one.event.point) for one in chosen]
        await services.subscriptions.discard(request, response, subscription, keys)
    return {"discarded": len(chosen)}


class _Awaited(Protocol):
    def __await__(self) -> Any: ...


async def _asked(answer: _Awaited) -> Any:
    """An answer for which the log may be asked. Raises Unavailable when it does not answer."""
    try:
        return await answer
    except JournalError as error:
        raise Unavailable(f"the log cannot be asked: {error}", RETRY_S) from error


async def _found(request: ApiRequest, services: Services) -> Subscription:
    return await services.subscriptions.find(request, request.path["name"])


def _form(services: Services, subscription: Subscription) -> Form:
    config = subscription.config
    name = services.subscriptions.collection(subscription).name
    log = services.node.replayer.log_name
    return Form(name, config.of, log, config.envelope, config.with_payload, bool(config.with_vector), config.with_before)


def _keys(services: Services, subscription: Subscription, body: TokensBody) -> dict[Key, str]:
    """The places of some tokens. Raises BadRequest for a token of something else."""
    try:
        return {
            parse_place(token, services.node.replayer.log_name, subscription.config.of).cursor: token for token in body.tokens
        }
    except ValueError as error:
        raise BadRequest(f"tokens: {error}") from error


def _answer(done: Sequence[Key], keys: dict[Key, str], name: str) -> Answer:
    known = set(done)
    return {name: len(done), "unknown": [token for key, token in keys.items() if key not in known]}


async def _chosen(request: ApiRequest, services: Services) -> tuple[Subscription, list[Parked]]:
    """The subscription, and those of its parked changes that the request names. Raises NotFound for one that is not parked."""
    body: ParkedBody = request.body
    await services.reads.catch_up_catalog(request)
    subscription = await _found(request, services)
    if body.tokens is None:
        return subscription, _in_order(subscription.parked)
    known = {Cursor(one.event.version, one.event.point): one for one in subscription.parked}
    wanted = _keys(services, subscription, TokensBody(body.tokens))
    for key, token in wanted.items():
        if key not in known:
            raise NotFound(f"Not found: {token} is not parked")
    return subscription, [known[key] for key in wanted]


def _in_order(some: Sequence[Parked]) -> list[Parked]:
    return sorted(some, key=lambda one: (one.event.version, one.event.point))


def _token(services: Services, subscription: Subscription, one: Parked) -> str:
    place = Place(Cursor(one.event.version, one.event.point))
    return place.text(services.node.replayer.log_name, subscription.config.of)


def _parked(services: Services, subscription: Subscription, one: Parked) -> Answer:
    return {
        "token": _token(services, subscription, one),
        "id": decode_id(one.event.point),
        "version": stamp_of(one.event.version),
        "attempts": one.event.attempts,
        "since": time_of(stamp_at(one.since_ms)),
    }


async def _described(services: Services, subscription: Subscription) -> Answer:
    config = msgspec.to_builtins(subscription.config)
    told: Answer = {"name": subscription.name, "group": services.subscriptions.group(subscription)}
    told |= {name: value for name, value in config.items() if name not in ("of", "since")}
    state = await _asked(services.subscriptions.state(subscription))
    in_flight, waiting = services.subscriptions.counts(state)
    settled = state.deliveries.settled
    told["state"] = "stopped" if state.stopped else "active"
    told |= {"in_flight": in_flight, "waiting": waiting, "parked": len(subscription.parked)}
    told["settled"] = {
        "token": Place(Cursor(settled)).text(services.node.replayer.log_name, subscription.config.of),
        "time": time_of(stamp_of(settled)),
    }
    return told | ({"reason": state.stopped} if state.stopped else {})
