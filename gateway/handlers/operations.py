"""Handler of the state of an operation (V3): its positions, shards and stamps by request id."""

from __future__ import annotations

from typing import Any

from gateway.http.errors import NotFound
from gateway.request import ApiRequest, Response
from gateway.services import Services


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The records of a request: their positions, shards, stamps, and verdicts on this node."""
    request_id = request.path["request_id"]
    records = services.node.operation(request_id)
    if not records:
        raise NotFound(f"Not found: operation {request_id!r} is not among the latest on this node; see `vecraft journal show`")
    return {
        "request_id": request_id,
        "records": [
            {
                "topic": record.partition.topic,
                "partition": record.partition.partition,
                "offset": record.offset,
                "operation": record.operation,
                "collection": record.collection,
                "shard": record.shard,
                "hlc": record.hlc,
                "stamp": record.stamp,
                "verdict": record.verdict,
                **({"reason": record.reason} if record.reason else {}),
            }
            for record in records
        ],
    }
