"""Changes as events, in one of three envelopes: the project's own, CloudEvents 1.0 in JSON, and Debezium's.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from gateway.as_of import time_of
from gateway.dialect.answers import part_of, vectors_answer
from gateway.dialect.bodies import WithPayload
from gateway.dialect.feed_bodies import Envelope
from journal.hlc import millis_of
from journal.ids import decode_id
from journal.stamps import stamp_of
from query.feed import Change, State
from shard.local import parts_of

Event = dict[str, Any]

_CLOUD_TYPES = {"insert": "inserted", "update": "updated", "delete": "deleted", "snapshot": "read"}
_DEBEZIUM_OPS = {"insert": "c", "update": "u", "delete": "d", "snapshot": "r"}


class Form(NamedTuple):
    """How the changes of a collection are told."""

    collection: str
    collection_id: int
    log: str
    envelope: Envelope
    with_payload: WithPayload
    with_vector: bool
    with_before: bool

    def token(self, change: Change) -> str:
        """The token of an event: a feed may go on after it."""
        return change.place.text(self.log, self.collection_id)

    def event(self, change: Change) -> Event:
        """A change in the wanted envelope."""
        match self.envelope:
            case "cloudevents":
                return self._cloud_event(change)
            case "debezium":
                return self._debezium(change)
        return {"token": self.token(change), **self._native(change)}

    def _native(self, change: Change) -> Event:
        stamp = stamp_of(change.version)
        event: Event = {"op": change.kind, "id": decode_id(change.id), "version": stamp, "time": time_of(stamp)}
        if change.kind != "snapshot":
            event["changed"] = {"payload": change.keys, "vectors": change.names}
        if change.after is not None and (self.with_payload is not False or self.with_vector):
            event["after"] = self._state(change.after)
        if change.before is not None and self.with_before:
            event["before"] = self._state(change.before)
        return event

    def _cloud_event(self, change: Change) -> Event:
        return {
            "specversion": "1.0",
            "id": self.token(change),
            "source": f"/collections/{self.collection}",
            "type": f"vecraft.v1.point.{_CLOUD_TYPES[change.kind]}",
            "subject": str(decode_id(change.id)),
            "time": time_of(stamp_of(change.version)),
            "datacontenttype": "application/json",
            "data": self._native(change),
        }

    def _debezium(self, change: Change) -> Event:
        def row(state: State | None) -> Event | None:
            return None if state is None else {"id": decode_id(change.id), **self._state(state)}

        ms = millis_of(stamp_of(change.version))
        return {
            "before": row(change.before) if self.with_before else None,
            "after": row(change.after),
            "source": {
                "connector": "vecraft",
                "name": self.log,
                "ts_ms": ms,
                "snapshot": "true" if change.kind == "snapshot" else "false",
                "table": self.collection,
                "sequence": self.token(change),
                "version": stamp_of(change.version),
            },
            "op": _DEBEZIUM_OPS[change.kind],
            "ts_ms": ms,
        }

    def _state(self, state: State) -> Event:
        shown: Event = {}
        if (part := part_of(self.with_payload)) is not None:
            shown["payload"] = orjson.Fragment(parts_of([state.payload], part)[0] or b"{}")
        if self.with_vector:
            shown["vector"] = vectors_answer(state.vectors)
        return shown
