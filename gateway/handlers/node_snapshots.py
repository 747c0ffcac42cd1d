"""Handlers of the snapshots of this node (`/admin/snapshots`, docs/snapshots.md)."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.dialect.bodies import PruneBody
from gateway.http.errors import BadRequest
from gateway.request import ApiRequest, Response
from gateway.services import Services
from snapshots.manifest import summary
from snapshots.node import NodeSnapshots
from snapshots.prune import Policy, Pruned


async def list_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The snapshots of all nodes at the place, the latest first; one that is being made says how far it is."""
    snapshots = snapshots_of(services)
    found = await asyncio.to_thread(snapshots.listed)
    failure = {"last_failure": snapshots.last_failure} if snapshots.last_failure else {}
    return {"url": snapshots.url, "snapshots": found, **failure}


async def create(request: ApiRequest, response: Response, services: Services) -> dict[str, Any] | None:
    """Makes a snapshot of this node."""
    making = snapshots_of(services).create()
    if not request.params.wait:
        response.accepted = True
        return None
    return dict(summary(await asyncio.wrap_future(making)))


async def verify(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Reads all files of a snapshot again, and compares them with its manifest."""
    found = await asyncio.wrap_future(snapshots_of(services).verify(request.path["snapshot_id"]))
    return {"id": request.path["snapshot_id"], "sound": not found, "faults": found}


async def prune(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Removes the snapshots of this node that a policy does not keep, and files that no snapshot needs."""
    body: PruneBody = request.body
    return _pruned(await asyncio.wrap_future(snapshots_of(services).prune(Policy(body.keep, body.keep_days))))


async def delete(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Removes a snapshot of this node, and the files that no other one needs."""
    return _pruned(await asyncio.wrap_future(snapshots_of(services).delete(request.path["snapshot_id"])))


def snapshots_of(services: Services) -> NodeSnapshots:
    """The snapshots of this node. Raises BadRequest when it has no place for them."""
    if (snapshots := services.node.snapshots) is None:
        raise BadRequest("this node has no place for snapshots: start it with --snapshot-url (docs/snapshots.md)")
    return snapshots


def _pruned(pruned: Pruned) -> dict[str, Any]:
    return {"snapshots": pruned.snapshots, "files": pruned.files, "bytes": pruned.bytes}
