"""The published document of the dialect (its reference's OpenAPI 3.0 document, version 1.19), as a judge of answers; and the
models of the dialect's client, which are of a later version.

`published/openapi-1.19.json` is that document without its texts: paths, parameters and schemas.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from pydantic import TypeAdapter
from qdrant_client.http import api

PUBLISHED = Path(__file__).parents[1] / "published" / "openapi-1.19.json"
DOCUMENT: dict[str, Any] = json.loads(PUBLISHED.read_text())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

Operation = tuple[str, str]
"""(method, path); the names of path parameters are as in the document."""

OPERATIONS: dict[Operation, dict[str, Any]] = {
    (method.upper(), path): operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
FORMATS = FormatChecker(("uuid",))
WHOLE = {"uint8": (0, 2**8), "uint32": (0, 2**32), "uint64": (0, 2**64), "uint": (0, 2**64), "int64": (-(2**63), 2**63)}
ENVELOPE = {
    "type": "object",
    "properties": {"time": {"type": "number", "minimum": 0}},
    "required": ["status", "time"],
}


@FORMATS.checks("date-time", raises=ValueError)
def is_moment(value: object) -> bool:
    """RFC 3339: with an offset."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def checks_whole(name: str, low: int, high: int) -> None:
    """Whole numbers of a format fit into it. A strict client takes no 1.0 for one."""
    FORMATS.checks(name)(lambda value: isinstance(value, str) or (isinstance(value, int) and low <= value < high))


for known, bounds in WHOLE.items():
    checks_whole(known, *bounds)


def as_json_schema(part: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema: `nullable` becomes a type."""
    if isinstance(part, list):
        return [as_json_schema(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    made = {key: as_json_schema(value) for key, value in part.items() if key != "nullable"}
    if part.get("nullable") is not True:
        return made
    return {"anyOf": [made, {"type": "null"}]} if made else {"type": "null"}


COMPONENTS = {"schemas": {name: as_json_schema(schema) for name, schema in SCHEMAS.items()}}


@cache
def judge(operation: Operation, status: str) -> Draft202012Validator:
    """The validator of the JSON answers to an operation."""
    schema = as_json_schema(OPERATIONS[operation]["responses"][status]["content"]["application/json"]["schema"])
    wrapped = "result" in schema.get("properties", {}) or schema.get("$ref", "").endswith("/ErrorResponse")
    whole = {"allOf": [ENVELOPE, schema] if wrapped else [schema], "components": COMPONENTS}
    return Draft202012Validator(whole, format_checker=FORMATS)


def models_of_client() -> dict[Operation, Any]:
    """What the client parses the answer to an operation as."""
    asked = re.compile(r'type_=([^,]+),\s+method="(\w+)",\s+url="([^"]+)"')
    return {
        (method, path): eval(kind, vars(module) | vars(typing))
        for module in vars(api).values()
        if hasattr(module, "__file__")
        for kind, method, path in asked.findall(inspect.getsource(module))
    }


CLIENT = models_of_client()


def check(operation: Operation, answer: httpx.Response, status: int) -> None:
    """Raises AssertionError unless an answer has this status, and is what the document says about it."""
    assert answer.status_code == status, f"{answer.status_code}, not {status}: {answer.text[:400]}"
    responses = OPERATIONS[operation]["responses"]
    told = next(key for key in (str(status), f"{status // 100}XX", "default") if key in responses)
    if "content" not in responses[told]:
        return
    (kind,) = responses[told]["content"]
    assert re.split(r"\s*;", answer.headers["content-type"])[0] == kind
    if kind == "application/json":
        fault = best_match(judge(operation, told).iter_errors(answer.json()))
        assert fault is None, f"{fault.json_path}: {fault.message[:300]} in {answer.text[:600]}"
        if status == 200 and operation in CLIENT:
            TypeAdapter(CLIENT[operation]).validate_json(answer.content)
