"""Handlers that add and remove named vectors of a collection."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialect.bodies import VectorNameBody
from gateway.dialect.configs import new_vector
from gateway.request import ApiRequest, Response
from gateway.services import Services
from journal.records import CreateVector, DeleteVector


async def create_vector(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Adds a named vector, which no point has yet. Changes nothing when it is there with equal parameters."""
    body: VectorNameBody = request.body
    name = request.path["vector_name"]
    params = msgspec.json.encode(new_vector(name, body))
    await services.writes.command(request, response, CreateVector(request.path["collection_name"], name, params))
    return {"operation_id": 0, "status": "completed"}


async def delete_vector(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Removes a named vector, and its values from all points."""
    path = request.path
    await services.writes.command(request, response, DeleteVector(path["collection_name"], path["vector_name"]))
    return {"operation_id": 0, "status": "completed"}
