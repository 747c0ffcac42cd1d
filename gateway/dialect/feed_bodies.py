"""Parameters and bodies of the change feed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.dialect.bodies import ReadParams, Shown
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
