"""Paths of the dialect that are not offered, in one table: each answer names the reason and an alternative.

Calls of a cluster answer 405, as on a single node of the dialect; others 501. None is in the OpenAPI document.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from starlette.types import Receive, Scope, Send

from gateway.http.errors import NotAllowed, Unsupported

_C = "/collections/{collection_name}"

_SHARD_KEYS = "shard keys are not supported: points are spread by their ids; keep tenants apart by a filter, or by collections"
_MOVES = "shards do not move: every node replays the whole log and holds all of them; start another node on the same log"
_PEERS = (
    "there is no cluster of peers: nodes share nothing but the log (docs/architecture.md); GET /admin/lag tells how far one is"
)
_QUOTAS = "quotas are settings of each node: start it with --memory-budget-mb; GET /quotas tells what they are"


@dataclass(frozen=True, slots=True)
class Refused:
    """An operation that is not implemented, and its alternative."""

    method: str
    path: str
    text: str
    status: int = Unsupported.status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers any request, as an ASGI application."""
        body = orjson.dumps({"status": {"error": f"Not supported: {self.text}"}, "time": 0.0})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if self.status == NotAllowed.status:
            headers.append((b"allow", b"GET" if self.path in _WITH_GET else b""))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_WITH_GET = (f"{_C}/shards", f"{_C}/cluster")
"""Paths of cluster calls that can be read."""

REFUSED = (
    *(
        Refused(method, path, text, NotAllowed.status)
        for method, path, text in (
            ("PUT", f"{_C}/shards", _SHARD_KEYS),
            ("POST", f"{_C}/shards/delete", _SHARD_KEYS),
            ("POST", f"{_C}/cluster", _MOVES),
            ("POST", "/cluster/recover", _PEERS),
            ("DELETE", "/cluster/peer/{peer_id}", _PEERS),
            ("GET", "/cluster/telemetry", _PEERS),
        )
    ),
    Refused("PUT", "/quotas", _QUOTAS),
)
