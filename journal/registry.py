"""Schemas of foreign producers, from a registry that speaks Confluent's API. Beside `kafka.py` all use of confluent_kafka."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import httpx
import orjson
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro.schema import SchemaParseException, parse_schema

from journal.log import Indefinite

MAX_SCHEMAS = 1_000
"""Schemas remembered; what an id stands for never changes."""


class UnknownSchema(Exception):
    """The registry has no such schema, or one of a kind that is not read here."""


class WriterSchema(NamedTuple):
    """What a producer wrote by: a parsed Avro schema, or None where the body is JSON."""

    avro: Any


class SchemaRegistry:
    """The registry at `url`; without one, every schema is unknown. Thread-safe."""

    def __init__(self, url: str = "") -> None:
        self._client = SchemaRegistryClient({"url": url}) if url else None
        self.by_id = lru_cache(MAX_SCHEMAS)(self._by_id)
        self.by_guid = lru_cache(MAX_SCHEMAS)(self._by_guid)

    def _by_id(self, number: int) -> WriterSchema:
        """The schema with this number. Raises UnknownSchema, or Indefinite when the registry cannot be asked."""
        return self._asked(f"schema {number}", lambda client: client.get_schema(number))

    def _by_guid(self, guid: str) -> WriterSchema:
        """The schema with this GUID. Raises as `by_id`."""
        return self._asked(f"schema {guid}", lambda client: client.get_schema_by_guid(guid))

    def _asked(self, what: str, ask: Callable[[SchemaRegistryClient], Schema]) -> WriterSchema:
        if self._client is None:
            raise UnknownSchema(f"{what} cannot be looked up: no schema registry is set (--schema-registry-url)")
        try:
            found = ask(self._client)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise UnknownSchema(f"{what} is not in the schema registry") from error
            raise Indefinite(f"the schema registry failed: {error}") from error
        except (httpx.HTTPError, OSError) as error:
            raise Indefinite(f"the schema registry does not answer: {error}") from error
        return _parsed(what, found)


def _parsed(what: str, schema: Schema) -> WriterSchema:
    if schema.schema_type == "JSON":
        return WriterSchema(None)
    if schema.schema_type not in (None, "AVRO"):
        raise UnknownSchema(f"{what} is of type {schema.schema_type}, only AVRO and JSON are read")
    try:
        return WriterSchema(parse_schema(orjson.loads(schema.schema_str or "")))
    except (SchemaParseException, ValueError) as error:
        raise UnknownSchema(f"{what} is no Avro schema on its own: {error}") from error
