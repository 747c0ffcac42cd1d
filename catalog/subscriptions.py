"""Subscriptions of change feeds that the server keeps: what is delivered and how, how far it is settled, and what was put aside.

They are a part of the catalog, so that every node knows them alike, also after a restart. How far a subscription is settled is
committed more often, as a consumer group's offsets (`gateway.subscriptions`); the catalog has a place that is somewhat older.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from catalog.errors import InvalidConfig
from journal.records import ParkedEvent

MAX_SUBSCRIPTIONS = 32
"""Number of subscriptions. Each is a consumer group that this node commits for."""

MAX_PARKED = 1000
"""Changes of a subscription that may be put aside. When there are as many, it stops instead."""

MAX_IN_FLIGHT, MAX_ATTEMPTS = 1000, 100
MIN_ACK_MS, MAX_ACK_MS = 100, 3_600_000

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SubscriptionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is delivered: the changes of `collection`, whose id is `of`, from the version `since` on that pass `filter`.

    `max_in_flight`: changes that are delivered and not settled. One that is not acknowledged within `ack_timeout_ms` is delivered
    again; what becomes of it after `max_attempts` says `on_failure`.
    """

    collection: str
    of: int
    since: int
    filter: Any = None
    with_payload: bool = True
    with_vector: bool | list[str] = False
    with_before: bool = False
    envelope: Literal["native", "cloudevents", "debezium"] = "native"
    max_in_flight: int = 100
    ack_timeout_ms: int = 30_000
    max_attempts: int = 5
    on_failure: Literal["park", "skip", "stop"] = "park"

    def validate(self) -> None:
        """Raises InvalidConfig, with a text that names the field and the bound."""
        for name, least, most in (
            ("max_in_flight", 1, MAX_IN_FLIGHT),
            ("ack_timeout_ms", MIN_ACK_MS, MAX_ACK_MS),
            ("max_attempts", 1, MAX_ATTEMPTS),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise InvalidConfig(f"{name} {value} must be between {least} and {most}")
        if self.since < 0:
            raise InvalidConfig(f"since {self.since} must not be negative")


class Parked(msgspec.Struct, frozen=True):
    """A change that was put aside at `since_ms`, by the log's time."""

    event: ParkedEvent
    since_ms: int


class Subscription(msgspec.Struct, frozen=True):
    """A subscription as the catalog knows it.

    `id` is the catalog position at which it was added: one that is deleted and added again has another. All changes below the
    version `settled` are settled.
    """

    name: str
    id: int
    config: SubscriptionConfig
    settled: int
    parked: tuple[Parked, ...] = ()


def check_subscription_name(name: str) -> None:
    """Raises InvalidConfig unless `name` is valid for a subscription."""
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"subscription name {name[:64]!r} must have 1 to 64 characters of A-Z a-z 0-9 _ -")


def put(known: Mapping[str, Subscription], name: str, config: SubscriptionConfig, position: int) -> Subscription:
    """The subscription `name` with this configuration: a new one, or the known one with its place. Raises InvalidConfig."""
    check_subscription_name(name)
    config.validate()
    if (same := known.get(name)) is None:
        if len(known) >= MAX_SUBSCRIPTIONS:
            raise InvalidConfig(f"there are {len(known)} subscriptions, the bound is {MAX_SUBSCRIPTIONS}")
        return Subscription(name, position, config, config.since)
    if same.config.of != config.of:
        raise InvalidConfig(f"subscription {name!r} is of another collection; delete the subscription first")
    return msgspec.structs.replace(same, config=msgspec.structs.replace(config, since=same.config.since))


def moved(subscription: Subscription, version: int) -> Subscription:
    """The subscription with everything below a version settled; it never goes back."""
    return msgspec.structs.replace(subscription, settled=max(subscription.settled, version))


def parked(subscription: Subscription, events: Sequence[ParkedEvent], time_ms: int) -> Subscription:
    """The subscription with some changes put aside. Raises InvalidConfig when there would be too many."""
    kept = {_key(one.event): one for one in subscription.parked}
    kept |= {_key(event): Parked(event, time_ms) for event in events}
    if len(kept) > MAX_PARKED:
        raise InvalidConfig(f"{len(subscription.parked)} changes of {subscription.name!r} are parked, the bound is {MAX_PARKED}")
    return msgspec.structs.replace(subscription, parked=tuple(kept.values()))


def unparked(subscription: Subscription, events: Sequence[ParkedEvent]) -> Subscription:
    """The subscription without some of the changes that were put aside; others are ignored."""
    gone = set(map(_key, events))
    return msgspec.structs.replace(subscription, parked=tuple(one for one in subscription.parked if _key(one.event) not in gone))


def _key(event: ParkedEvent) -> tuple[int, bytes]:
    return event.version, event.point
