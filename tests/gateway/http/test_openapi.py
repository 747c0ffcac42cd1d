"""The OpenAPI document is true: whatever it allows to be sent gets an answer that it foresees, and never a 5xx."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from gateway.handlers.unsupported import REFUSED
from gateway.http.openapi import document

EMPTY = {"type": "object", "additionalProperties": False}
SMALL = {
    "Condition": EMPTY | {"properties": {"has_id": {"type": "array", "items": {"type": "integer", "minimum": 0}}}},
    "Prefetch": EMPTY | {"properties": {"limit": {"type": "integer", "minimum": 1, "maximum": 10}}},
    "SearchParams": EMPTY | {"properties": {"exact": {"type": "boolean"}}},
    "LookupLocation": EMPTY | {"properties": {"collection": {"type": "string"}}, "required": ["collection"]},
}
"""What stands for structures at all places but one: whole, each would have the same thousands of cases at dozens of places."""


def told(paths: str, *whole: str) -> Any:
    """The operations at these paths, with these structures as they are and the others small.

    What is allowed is tried case by case and at random, what is not at random only.
    """
    found = document("Vecraft DB", "test")
    found["components"]["schemas"] |= {name: small for name, small in SMALL.items() if name not in whole}
    _hasten(found)
    schema = schemathesis.openapi.from_dict(found)
    schema.config.phases.coverage.generation = GenerationConfig(modes=[GenerationMode.POSITIVE])
    return schema.include(path_regex=paths)


def _hasten(part: Any) -> None:
    """Nobody waits long for changes that do not come."""
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if name == "wait_ms":
            value["maximum"] = 5
        elif name == "schema" and part.get("name") == "wait_ms":
            part["schema"] = {"type": "integer", "minimum": 0, "maximum": 5}
        else:
            _hasten(value)


EVERYWHERE = told(r"^/(?!v1/)(?!.*/points/(count|query)$)")
FILTERS = told(r"^/collections/{\w+}/points/count$", "Condition")
QUERIES = told(r"^/collections/{\w+}/points/query$", "Prefetch", "SearchParams", "LookupLocation")
SESSION = requests.Session()
SESSION.trust_env = False
FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def something_there(node_url: str) -> None:
    """So that some of the guesses meet a collection."""
    with httpx.Client(base_url=node_url) as client:
        client.put("/collections/0", json={"vectors": {"size": 1, "distance": "Dot"}}).raise_for_status()
        client.put("/collections/0/points?wait=true", json={"points": [{"id": 0, "vector": [1]}]}).raise_for_status()


@pytest.mark.slow
@EVERYWHERE.parametrize()
@FEW
def test_whatever_the_document_allows(node_url: str, case: schemathesis.Case) -> None:
    check(node_url, case)


@pytest.mark.slow
@FILTERS.parametrize()
@FEW
def test_whatever_filter_the_document_allows(node_url: str, case: schemathesis.Case) -> None:
    check(node_url, case)


@pytest.mark.slow
@QUERIES.parametrize()
@FEW
def test_whatever_query_the_document_allows(node_url: str, case: schemathesis.Case) -> None:
    check(node_url, case)


def check(node_url: str, case: schemathesis.Case) -> None:
    if "collection_name" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["collection_name"] = "0"
    response = case.call(base_url=node_url, session=SESSION)
    if response.status_code == 501:  # a method that the document does not have
        assert (case.method, case.path) in {(refused.method, refused.path) for refused in REFUSED}
        return
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])


def test_the_served_document_is_this_one(http: httpx.Client) -> None:
    served = http.get("/openapi.json").json()
    assert served["paths"].keys() == document("", "")["paths"].keys()
    assert "swagger" in http.get("/docs").text.lower()
