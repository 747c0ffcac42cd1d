"""Schemas of foreign producers, from a schema registry with Confluent's REST API. Uses two GET requests of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import httpx
import orjson
from fastavro.schema import parse_schema

from journal.log import Indefinite

MAX_SCHEMAS = 500
"""Size of the cache, each by number and by GUID. A registered schema never changes."""

MAX_SCHEMA_CHARS = 256 << 10
"""A longer schema is refused: parsed, it would take several times this size in the cache."""

TIMEOUT_S = 5.0
_NO_BYTES = ({"type": "null"}, {"type": "fixed", "size": 0})


class UnknownSchema(Exception):
    """The schema does not exist or is not supported. The text names it and the reason."""


class WriterSchema(NamedTuple):
    """The schema of a producer's record: a parsed Avro schema, or None for a JSON body."""

    avro: Any


class SchemaRegistry:
    """The registry at `url`, which may contain user and password. Without a URL every schema is unknown. Thread-safe."""

    def __init__(self, url: str = "") -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S) if url else None
        self.by_id = lru_cache(MAX_SCHEMAS)(self._by_id)
        self.by_guid = lru_cache(MAX_SCHEMAS)(self._by_guid)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _by_id(self, number: int) -> WriterSchema:
        """The schema with this number. Raises UnknownSchema, or Indefinite when the registry is not available."""
        return self._fetch(f"schema {number}", f"/schemas/ids/{number}")

    def _by_guid(self, guid: str) -> WriterSchema:
        """The schema with this GUID. Raises the errors of `by_id`."""
        return self._fetch(f"schema {guid}", f"/schemas/guids/{guid}")

    def _fetch(self, what: str, path: str) -> WriterSchema:
        if self._client is None:
            raise UnknownSchema(f"{what} cannot be looked up: no schema registry is set (--schema-registry-url)")
        try:
            answer = self._client.get(path, headers={"Accept": "application/vnd.schemaregistry.v1+json"})
            body = answer.json() if answer.status_code == 200 else {}
        except (httpx.HTTPError, ValueError) as error:
            raise Indefinite(f"the schema registry does not answer: {type(error).__name__} {error}") from error
        if answer.status_code == 404:
            raise UnknownSchema(f"{what} is not in the schema registry")
        if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
            raise Indefinite(f"the schema registry answers with status {answer.status_code} and no schema")
        return _parsed(what, body.get("schemaType", "AVRO"), body["schema"])


def _parsed(what: str, kind: str, text: str) -> WriterSchema:
    if kind == "JSON":
        return WriterSchema(None)
    if len(text) > MAX_SCHEMA_CHARS:
        raise UnknownSchema(f"{what} has {len(text)} characters, the bound is {MAX_SCHEMA_CHARS}")
    if kind != "AVRO":
        raise UnknownSchema(f"{what} is of type {kind}, only AVRO and JSON are read")
    try:
        schema = parse_schema(orjson.loads(text))
    except Exception as error:  # an invalid schema can make fastavro raise any exception
        raise UnknownSchema(f"{what} is no Avro schema that can be read on its own") from error
    if reason := _unsafe(schema, ()):
        raise UnknownSchema(f"{what} is not read: {reason}")
    return WriterSchema(schema)


def _unsafe(schema: Any, inside: Sequence[str]) -> str | None:
    """Why a few bytes of data could make a reader of this schema recurse or allocate without bound; None when it is safe."""
    if isinstance(schema, str):
        return f"{schema} refers to itself" if schema in inside else None
    if isinstance(schema, list):
        parts = schema
    else:
        kind = schema["type"]
        items = schema.get("items") if kind == "array" else None
        if items is not None and (items == "null" or items in _NO_BYTES or _is_empty_record(items)):
            return "an array's items take no bytes"
        inside = (*inside, schema["name"]) if kind == "record" else inside
        parts = [field["type"] for field in schema.get("fields", ())] + [
            schema[key] for key in ("items", "values") if key in schema
        ]
        if isinstance(kind, dict | list):
            parts.append(kind)
    return next((reason for part in parts if (reason := _unsafe(part, inside))), None)


def _is_empty_record(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "record" and not schema.get("fields")
