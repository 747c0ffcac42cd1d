"""The OpenAPI document is true: whatever it allows to be sent gets an answer that it foresees, and never a 5xx."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from gateway.openapi import document
from gateway.unsupported import REFUSED

HAS_IDS = {"type": "object", "properties": {"has_id": {"type": "array", "items": {"type": "integer", "minimum": 0}}}}


def everywhere() -> dict[str, Any]:
    """The document with a small filter at each place: the whole of it stands at dozens, with the same thousands of cases at each."""
    found = document("Vecraft DB", "test")
    found["components"]["schemas"]["Condition"] = HAS_IDS | {"additionalProperties": False}
    return found


DIALECT = schemathesis.openapi.from_dict(everywhere()).include(path_regex=r"^/(?!v1/)")
FILTERS = schemathesis.openapi.from_dict(document("Vecraft DB", "test")).include(path_regex=r"^/collections/{\w+}/points/count$")


@pytest.fixture(scope="module", autouse=True)
def something_there(node_url: str) -> None:
    """So that some of the guesses meet a collection."""
    with httpx.Client(base_url=node_url) as client:
        client.put("/collections/0", json={"vectors": {"size": 1, "distance": "Dot"}}).raise_for_status()
        client.put("/collections/0/points?wait=true", json={"points": [{"id": 0, "vector": [1]}]}).raise_for_status()


@pytest.mark.slow
@DIALECT.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_document_allows(node_url: str, case: schemathesis.Case) -> None:
    check(node_url, case)


@pytest.mark.slow
@FILTERS.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_filter_the_document_allows(node_url: str, case: schemathesis.Case) -> None:
    check(node_url, case)


def check(node_url: str, case: schemathesis.Case) -> None:
    if "collection_name" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["collection_name"] = "0"
    response = case.call(base_url=node_url)
    if response.status_code == 501:  # a method that the document does not have
        assert (case.method, case.path) in {(refused.method, refused.path) for refused in REFUSED}
        return
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])


def test_the_served_document_is_this_one(http: httpx.Client) -> None:
    served = http.get("/openapi.json").json()
    assert served["paths"].keys() == document("", "")["paths"].keys()
    assert "swagger" in http.get("/docs").text.lower()
