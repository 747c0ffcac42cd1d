"""Every bound that the published document sets for a field of a request is kept: what is beyond it is refused."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from gateway.admission.strict_mode import StrictModeBody
from gateway.dialect import bodies
from tests.conftest import refusal
from tests.gateway.dialect.test_bodies import MODELS
from tests.gateway.dialect.walk.document import SCHEMAS

STRICTER = {
    (bodies.WalBody, "wal_retain_closed"),  # the document's own answers have at least 1
}
Bound = tuple[str, str, str, float]
"""(schema of the document, field, `minimum` or `maximum`, its value)"""


def bounds() -> list[Bound]:
    """Those of the bodies that this server parses; the limits of strict mode are checked with their values."""
    return [
        (name, field, side, schema[side])
        for name, body in MODELS.items()
        if name in SCHEMAS and body is not StrictModeBody
        for field, schema in SCHEMAS[name].get("properties", {}).items()
        for side in ("minimum", "maximum", "minItems")
        if side in schema and (body, field) not in STRICTER
    ]


@pytest.mark.parametrize(("name", "field", "side", "value"), bounds(), ids=lambda part: str(part))
def test_a_bound_of_the_document_is_one_of_the_body(name: str, field: str, side: str, value: float) -> None:
    body = MODELS[name]
    (kind,) = (one.type for one in msgspec.structs.fields(body) if one.encode_name == field)
    found: Any = msgspec.inspect.type_info(kind)
    ours = {
        getattr(part, {"minimum": "ge", "maximum": "le", "minItems": "min_length"}[side], None)
        for part in getattr(found, "types", (found,))
    }
    assert ours - {None} == {value}


@pytest.mark.parametrize("limit", [name for name in StrictModeBody.__struct_fields__ if name.startswith("max_")])
def test_a_limit_of_strict_mode_is_bounded_as_the_document_says(http: httpx.Client, name: str, limit: str) -> None:
    low = SCHEMAS["StrictModeConfig"]["properties"][limit]["minimum"]
    answer = http.patch(f"/collections/{name}", json={"strict_mode_config": {limit: low - 1}})
    assert f"[strict_mode_config: {limit} is {low - 1}, must be between {low} and" in refusal(answer)
    http.patch(f"/collections/{name}", json={"strict_mode_config": {limit: low}}).raise_for_status()
