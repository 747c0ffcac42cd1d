"""Handlers of payload indexes, and the conversion of field schemas between the forms of the dialect and of the catalog."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from gateway.admission.limits import check_index
from gateway.dialect.bodies import CreateIndexBody, FieldParams
from gateway.dialect.placements import ALWAYS_IN_MEMORY, placed
from gateway.http.errors import BadRequest
from gateway.request import ApiRequest, Response
from gateway.services import Services
from gateway.writes import APPLY_S
from journal.records import CreatePayloadIndex, DeletePayloadIndex
from payload.errors import BoundError
from payload.paths import steps_of
from payload.schema import FieldSchema, FieldType, Tokenizer, text_options_error

BUILT_CHECK_S = 0.02

_ANY_TYPE = {"on_disk", "enable_hnsw", "memory"}
_TEXT = {"tokenizer", "lowercase", "min_token_len", "max_token_len", "phrase_matching", "ascii_folding", "stopwords", "stemmer"}
_OPTIONS = {
    FieldType.KEYWORD: {"is_tenant", "prefix"},
    FieldType.INTEGER: {"is_principal", "lookup", "range"},
    FieldType.FLOAT: {"is_principal"},
    FieldType.DATETIME: {"is_principal"},
    FieldType.UUID: {"is_tenant"},
    FieldType.TEXT: _TEXT,
}


async def create_index(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Indexes a payload field."""
    body: CreateIndexBody = request.body
    steps_of(body.field_name)
    schema = msgspec.json.encode(field_schema(body))
    name = request.path["collection_name"]
    if (collection := await services.reads.find_or_retry(request, name)) is not None:
        check_index(request, collection, body.field_name)
    await services.writes.command(request, response, CreatePayloadIndex(name, body.field_name, schema))
    built = request.params.wait and await _built(request, services, name, body.field_name)
    return {"operation_id": 0, "status": "completed" if built else "acknowledged"}


async def _built(request: ApiRequest, services: Services, name: str, field: str) -> bool:
    """Waits until the index is built in all shards that are served here. False when that takes too long."""
    deadline_s = time.monotonic() + (request.timeout_s or APPLY_S)
    while time.monotonic() < deadline_s:
        collection = services.reads.catalog.find(name)
        if collection is None or field not in collection.fields:  # dropped meanwhile
            return True
        if all(field in status.fields for status in await services.reads.statuses(collection)):
            return True
        await asyncio.sleep(BUILT_CHECK_S)
    return False


async def delete_index(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Drops the index of a payload field."""
    await services.writes.command(
        request, response, DeletePayloadIndex(request.path["collection_name"], request.path["field_name"])
    )
    return {"operation_id": 0, "status": "completed"}


def field_schema(body: CreateIndexBody) -> FieldSchema:
    """The schema in a request. Raises BadRequest or BoundError."""
    if body.field_schema is None:
        raise BoundError("field_schema: is missing, name a type")
    params = body.field_schema if isinstance(body.field_schema, FieldParams) else FieldParams(body.field_schema)
    given = {name: value for name in params.__struct_fields__ if (value := getattr(params, name)) is not None}
    given["type"] = kind = _one_of(FieldType, params.type, "field_schema.type")
    if params.tokenizer is not None:
        given["tokenizer"] = _one_of(Tokenizer, params.tokenizer, "field_schema.tokenizer")
    known = _ANY_TYPE | _OPTIONS.get(kind, set())
    if wrong := sorted(given.keys() - known - {"type"}):
        raise BoundError(f"field_schema.{wrong[0]}: is no option of type {kind}, which has {', '.join(sorted(known))}")
    if error := text_options_error(params.min_token_len, params.max_token_len, params.stemmer):
        raise BoundError(f"field_schema.{error}")
    if params.lookup is False and params.range is False:
        raise BoundError("field_schema.lookup: is false, and range too: at least one must be true")
    placed("field_schema", params.memory, ALWAYS_IN_MEMORY)
    return FieldSchema(**given)


def described(schema: FieldSchema) -> dict[str, Any]:
    """A field's schema in the dialect's form: its type, and its options, if any."""
    params = msgspec.to_builtins(schema)
    return {"data_type": schema.type.value} | ({"params": params} if len(params) > 1 else {})


def _one_of(choices: type[FieldType] | type[Tokenizer], value: str, label: str) -> Any:
    try:
        return choices(value)
    except ValueError:
        raise BadRequest(f"{label} {value[:32]!r} is not supported, must be one of {', '.join(choices)}") from None
