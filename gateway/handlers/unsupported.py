"""Paths of the dialect that are not implemented: each answers 501 and names an alternative. Not in the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from starlette.types import Receive, Scope, Send

from gateway.http.errors import Unsupported

_C = "/collections/{collection_name}"
_SHARD = f"{_C}/shards/{{shard_id}}"

_SNAPSHOTS = "snapshots are not supported: the journal is the truth and its topics are what to back up (docs/reliability.md)"
_SHARD_KEYS = "shard keys are not supported: points are spread by their ids; keep tenants apart by a filter, or by collections"
_MOVES = "shards do not move: every node replays the whole log and holds all of them; start another node on the same log"
_PEERS = (
    "there is no cluster of peers: nodes share nothing but the log (docs/architecture.md); GET /admin/lag tells how far one is"
)
_QUOTAS = "quotas are not supported: limit a collection by its strict_mode_config"


@dataclass(frozen=True, slots=True)
class Refused:
    """An operation that is not implemented, and its alternative."""

    method: str
    path: str
    text: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers any request, as an ASGI application."""
        body = orjson.dumps({"status": {"error": f"Not supported: {self.text}"}, "time": 0.0})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": Unsupported.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


REFUSED = (
    *(
        Refused(method, f"{prefix}{path}", _SNAPSHOTS)
        for prefix in ("", _C, _SHARD)
        for method, path in (
            ("GET", "/snapshots"),
            ("POST", "/snapshots"),
            ("GET", "/snapshots/{snapshot_name}"),
            ("DELETE", "/snapshots/{snapshot_name}"),
            ("PUT", "/snapshots/recover"),
            ("POST", "/snapshots/upload"),
        )
    ),
    Refused("GET", f"{_SHARD}/snapshot", _SNAPSHOTS),
    Refused("PUT", f"{_C}/shards", _SHARD_KEYS),
    Refused("POST", f"{_C}/shards/delete", _SHARD_KEYS),
    Refused("POST", f"{_C}/cluster", _MOVES),
    Refused("POST", "/cluster/recover", _PEERS),
    Refused("DELETE", "/cluster/peer/{peer_id}", _PEERS),
    Refused("GET", "/cluster/telemetry", _PEERS),
    Refused("GET", "/quotas", _QUOTAS),
    Refused("PUT", "/quotas", _QUOTAS),
)
