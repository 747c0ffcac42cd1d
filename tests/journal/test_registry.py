"""What a schema registry answers, and what of it is read."""

from __future__ import annotations

import httpx
import orjson
import pytest

from journal.log import Indefinite
from journal.registry import MAX_SCHEMA_CHARS, SchemaRegistry, UnknownSchema


def registry(answer: object) -> SchemaRegistry:
    """A registry that gives the same answer to all."""
    made = SchemaRegistry()
    made._client = httpx.Client(
        base_url="http://registry", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    )
    return made


def test_a_schema_is_read() -> None:
    text = orjson.dumps({"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}).decode()
    assert registry({"schema": text}).by_id(7).avro["name"] == "R"


def test_a_schema_that_is_too_long_to_be_remembered_is_not_read() -> None:
    """I11"""
    fields = [{"name": f"field{number}", "type": "long"} for number in range(10_000)]
    text = orjson.dumps({"type": "record", "name": "R", "fields": fields}).decode()
    with pytest.raises(UnknownSchema, match=f"schema 7 has {len(text)} characters, the bound is {MAX_SCHEMA_CHARS}"):
        registry({"schema": text}).by_id(7)


@pytest.mark.parametrize("answer", [[], {}, {"schema": None}, {"schema": 5}])
def test_an_answer_without_a_schema_says_nothing_of_it(answer: object) -> None:
    with pytest.raises(Indefinite, match="no schema"):
        registry(answer).by_id(7)
