"""Parameters and bodies of the change feed and of its subscriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from catalog.subscriptions import MAX_ACK_MS, MAX_ATTEMPTS, MAX_IN_FLIGHT, MIN_ACK_MS
from gateway.dialect.bodies import Body, ReadParams, Shown
from shard.filters.conditions import Condition

MAX_PAGE = 10_000
DEFAULT_PAGE = 100
MAX_WAIT_MS = 60_000

Envelope = Literal["native", "cloudevents", "debezium"]
PageLimit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
WaitMs = Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)]
Start = Annotated[str, Meta(max_length=1024)]


class ChangesBody(Shown, rename={"start": "from"}, kw_only=True):
    """What is wanted of a feed. The names of the vectors in `with_vector` may be given, `filter` as in a search."""

    start: Start = ""
    snapshot: Literal["initial"] | None = None
    limit: PageLimit = DEFAULT_PAGE
    wait_ms: WaitMs = 0
    with_before: bool = False
    envelope: Envelope = "native"
    filter: Condition | None = None


class ChangesParams(ReadParams, rename={"start": "from"}, kw_only=True):
    """The same as parameters, without a filter and without parts of payloads and vectors."""

    is_own = True

    start: Start = ""
    snapshot: Literal["initial"] | None = None
    limit: PageLimit = DEFAULT_PAGE
    wait_ms: WaitMs = 0
    with_payload: bool = True
    with_vector: bool = False
    with_before: bool = False
    envelope: Envelope = "native"

    def body(self) -> ChangesBody:
        """What is wanted, as the body of the other form of the route says it."""
        names = ChangesParams.__struct_fields__
        return ChangesBody(**{name: getattr(self, name) for name in names if name in ChangesBody.__struct_fields__})


class OwnReadParams(ReadParams):
    """As those of a read, on a route of the project's own."""

    is_own = True


# Subscriptions.

Tokens = Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(min_length=1, max_length=1000)]


class SubscriptionBody(Body, rename={"start": "from"}, kw_only=True):
    """A subscription; see `catalog.subscriptions.SubscriptionConfig`. `from` counts when it is added."""

    collection: str
    start: Start = ""
    filter: Condition | None = None
    with_payload: bool = True
    with_vector: bool | list[str] = False
    with_before: bool = False
    envelope: Envelope = "native"
    max_in_flight: Annotated[int, Meta(ge=1, le=MAX_IN_FLIGHT)] = 100
    ack_timeout_ms: Annotated[int, Meta(ge=MIN_ACK_MS, le=MAX_ACK_MS)] = 30_000
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] = 5
    on_failure: Literal["park", "skip", "stop"] = "park"


class FetchBody(Body):
    """At most `limit` changes; waits for the first one for `wait_ms`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_IN_FLIGHT)] = 100
    wait_ms: WaitMs = 0


class TokensBody(Body):
    """The tokens of delivered changes."""

    tokens: Tokens


class NackBody(TokensBody, kw_only=True):
    """They are delivered again after `delay_ms`."""

    delay_ms: Annotated[int, Meta(ge=0, le=MAX_ACK_MS)] = 0


class ParkedBody(Body):
    """The tokens of parked changes; all when they are not given, 100 at most to replay."""

    tokens: Tokens | None = None
