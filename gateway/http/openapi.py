"""The OpenAPI document, generated from the table of routes and the structures that parse the bodies."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.http.endpoint import MAX_BODY_BYTES
from gateway.http.routes import ROUTES, Route

_ERRORS = {
    "400": "The request cannot be read, or does not fit; the text names the field. Nothing was written.",
    "404": "There is no such thing.",
    "408": "The read took longer than its timeout.",
    "409": "It exists already.",
    "410": "What is asked for is not kept any more.",
    "413": f"The body is above {MAX_BODY_BYTES} bytes.",
    "422": "The request can be read, and breaks a bound or lacks a condition; the text names both. Nothing was written.",
    "429": "Too much is in flight; try again after Retry-After seconds. Nothing was written.",
    "503": "The node cannot do this now; try again after Retry-After seconds. Nothing was written.",
    "504": "It is not known whether this was written; retry with the same Idempotency-Key.",
}
_HEADERS = {
    "X-Request-Id": (
        "Names the request; one is made when none is given.",
        {"type": "string", "maxLength": 128, "pattern": "^[!-~]+$"},
    ),
    "X-Vecraft-Position": ("A position token of an earlier answer: read at least what it saw.", {"type": "string"}),
}
_WRITE_HEADERS = {
    "Idempotency-Key": (
        "A write with the same key within 24 hours changes nothing.",
        {"type": "string", "maxLength": 128, "pattern": "^[!-~]+$"},
    ),
    "X-Vecraft-Tier": ("QoS tier of the write.", {"type": "integer", "minimum": 0, "maximum": 3}),
}


def document(title: str, version: str) -> dict[str, Any]:
    """The document for all routes, at `/` and under `/v1`."""
    kinds = [kind for route in ROUTES for kind in (route.body, route.params) if kind is not None]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for prefix in ("", "/v1"):
        for route in ROUTES:
            paths.setdefault(prefix + route.path, {})[route.method.lower()] = _operation(route, prefix, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": components | _ENVELOPES},
    }


_ENVELOPES = {
    "Success": {
        "type": "object",
        "properties": {"result": {}, "status": {"const": "ok"}, "time": {"type": "number"}},
        "required": ["result", "status", "time"],
    },
    "Accepted": {
        "type": "object",
        "properties": {"status": {"const": "accepted"}, "time": {"type": "number"}},
        "required": ["status", "time"],
    },
    "Error": {
        "type": "object",
        "properties": {
            "status": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
            "time": {"type": "number"},
        },
        "required": ["status", "time"],
    },
}


def _operation(route: Route, prefix: str, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method} {prefix}{route.path}").strip("_").lower(),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route, components),
        "responses": {"200": _response("Success", "Success")}
        | {status: _response("Error", text) for status, text in _ERRORS.items()},
    }
    if route.is_file:
        schema = {"type": "string", "format": "binary"}
        content = {"application/octet-stream": {"schema": schema}}
        operation["responses"]["200"] = {"description": "the file", "content": content}
    if route.params.__name__ in ("SnapshotParams", "UploadParams"):
        operation["responses"]["202"] = _response("Accepted", "With wait=false: the work has begun.")
    if route.streamed:
        form = {"type": "object", "properties": {"snapshot": {"type": "string", "format": "binary"}}, "required": ["snapshot"]}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    if route.stream is not None:
        operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        text = "In a stream: the id of the last event; the next ones follow."
        operation["parameters"].append(
            {"name": "Last-Event-ID", "in": "header", "description": text, "schema": {"type": "string"}}
        )
    if route.body is not None:
        schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        operation["requestBody"] = {"required": not route.optional_body, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 255}}
        for name in names
    ]
    properties = components[route.params.__name__].get("properties", {})
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    headers = _HEADERS | (_WRITE_HEADERS if route.params.__name__ == "WriteParams" else {})
    parameters += [
        {"name": name, "in": "header", "description": text, "schema": schema} for name, (text, schema) in headers.items()
    ]
    return parameters


def _response(schema: str, description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
