"""U2: what foreign producers may write, in each framing, and what is rejected with which words."""

from __future__ import annotations

import base64
import contextlib
import io
import uuid
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st

import schemas
from journal.ids import encode_id
from journal.log import Entry, Headers, Indefinite, TopicPartition
from journal.records import Delete, PatchPayload, Upsert
from journal.registry import SchemaRegistry, UnknownSchema, WriterSchema
from replayer.ingest.format import Change, NotIngestible, change_of

SCHEMA = schemas.load("ingest.v1.avsc")
FINGERPRINT = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
OTHER = {
    "type": "record",
    "name": "Mine",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "collection", "type": "string"},
        {"name": "vector", "type": {"type": "array", "items": "double"}},
        {"name": "payload", "type": {"type": "map", "values": "int"}},
    ],
}
GUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
VECTOR = [1.0, -2.5, 0.5]
DATA = np.array(VECTOR, "<f4").tobytes()


class Registry(SchemaRegistry):
    """Knows one schema of a producer's own as 7, one of JSON as 8; asked for 9 it does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.by_id = self._known
        self.by_guid = self._known

    def _known(self, name: object) -> WriterSchema:
        if name == 9:
            raise Indefinite("the schema registry does not answer")
        if name == 8:
            return WriterSchema(None)
        if name in (7, str(GUID)):
            return WriterSchema(parse_schema(OTHER))
        raise UnknownSchema(f"schema {name} is not in the schema registry")


def avro(schema: Any, record: dict[str, object]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema(schema), record)
    return out.getvalue()


def entry(value: bytes, key: bytes | None = None, headers: Headers = ()) -> Entry:
    return Entry(TopicPartition("v.ingest", 0), 5, 0, key, value, headers)


def parsed(value: bytes | dict[str, object], key: bytes | None = None, headers: Headers = ()) -> Change:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return change_of(entry(data, key, headers), Registry())


UPSERT: dict[str, object] = {"collection": "c", "id": 7, "vector": VECTOR, "payload": {"a": 1}}
MINE: dict[str, object] = {"collection": "c", "id": 7, "vector": VECTOR, "payload": {"a": 1}}
FORMS = {
    "JSON": (orjson.dumps(UPSERT), ()),
    "JSON, base64": (orjson.dumps(UPSERT | {"vector": base64.b64encode(DATA).decode()}), ()),
    "JSON, blanks first": (b"\n  " + orjson.dumps(UPSERT), ()),
    "single object, bytes": (b"\xc3\x01" + FINGERPRINT + avro(SCHEMA, UPSERT | {"vector": DATA, "payload": '{"a":1}'}), ()),
    "single object, floats": (b"\xc3\x01" + FINGERPRINT + avro(SCHEMA, UPSERT | {"payload": '{"a":1}'}), ()),
    "Confluent": (b"\x00\x00\x00\x00\x07" + avro(OTHER, MINE), ()),
    "Confluent by GUID": (b"\x01" + GUID.bytes + avro(OTHER, MINE), ()),
    "Confluent JSON": (b"\x00\x00\x00\x00\x08" + orjson.dumps(UPSERT), ()),
    "header": (avro(OTHER, MINE), (("__value_schema_id", b"\x01" + GUID.bytes),)),
    "header by number": (avro(OTHER, MINE), (("__value_schema_id", b"\x00\x00\x00\x00\x07"),)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_framing_says_the_same(form: str) -> None:
    value, headers = FORMS[form]
    change = parsed(value, headers=headers)
    assert (change.collection, change.tier, change.key) == ("c", 2, "")
    assert isinstance(change.operation, Upsert)
    (column,) = change.operation.vectors
    assert (column.name, column.size, column.data) == ("", 3, DATA)
    assert (change.operation.ids, orjson.loads(change.operation.payloads[0])) == ([encode_id(7)], {"a": 1})


def test_the_other_operations() -> None:
    assert parsed({"collection": "c", "id": "x", "op": "delete"}).operation == Delete([encode_id("x")])
    patch = parsed({"collection": "c", "id": 1, "op": "patch", "payload": {"a": 1, "gone": None}}).operation
    assert patch == PatchPayload([encode_id(1)], b'{"a":1}', ["gone"])
    named = parsed({"collection": "c", "id": 1, "vector": {"a": [1], "b": [2, 3]}}).operation
    assert [(column.name, column.size) for column in named.vectors] == [("a", 1), ("b", 2)]


def test_the_key_stands_in_for_a_missing_id_and_the_header_for_the_collection() -> None:
    """A record without a value deletes, as it does in compacted topics."""
    headers = [("vecraft-collection", b"c")]
    assert parsed(b"", b"17", headers).operation == Delete([encode_id(17)])
    assert parsed(b"", b"free text", headers).operation == Delete([encode_id("free text")])
    assert parsed({"id": 3, "payload": {}}, b"17", headers).operation == Upsert([encode_id(3)], [], [b""])
    assert parsed({"collection": "body", "id": 3}, None, headers).collection == "body"


def test_headers_pick_the_tier_and_the_idempotency_key() -> None:
    assert parsed(UPSERT, headers=[("vecraft-tier", b"0")]).tier == 0
    assert parsed(UPSERT, headers=[("ce_id", b"17")]).key == "/17"
    assert parsed(UPSERT, headers=[("ce_id", b"17"), ("ce_source", b"/shop")]).key == "/shop/17"


BAD = {
    "collection is named neither": ({"id": 1}, None, ()),
    "id is missing": ({"collection": "c"}, None, ()),
    "unknown field `vectr`": (UPSERT | {"vectr": 1}, None, ()),
    "Invalid enum value 'insert'": (UPSERT | {"op": "insert"}, None, ()),
    "vecraft-tier '4' must be between 0 and 3": (UPSERT, None, [("vecraft-tier", b"4")]),
    "a delete takes no payload": ({"collection": "c", "id": 1, "op": "delete", "payload": {"a": 1}}, None, ()),
    "a patch takes no vector": (UPSERT | {"op": "patch"}, None, ()),
    "a patch needs a payload": ({"collection": "c", "id": 1, "op": "patch"}, None, ()),
    "id -1 is out of bounds": (UPSERT | {"id": -1}, None, ()),
    "vector has 5 bytes": (UPSERT | {"vector": base64.b64encode(bytes(5)).decode()}, None, ()),
    "vector has 0 bytes": (UPSERT | {"vector": []}, None, ()),
    "the JSON ends too early": (b"{", None, ()),
    "JSON is malformed": (b"poison", None, ()),
    "nested too deep": (b'{"id": 1, "payload": ' + b"[" * 100_000, None, ()),
    "bytes follow the Avro record": (b"\xc3\x01" + FINGERPRINT + avro(SCHEMA, UPSERT | {"payload": None}) + b"x", None, ()),
    "not Avro of its schema": (b"\xc3\x01" + FINGERPRINT + b"\xff", None, ()),
    "no known schema has the fingerprint 0000000000000000": (b"\xc3\x01" + bytes(8), None, ()),
    "schema 3 is not in the schema registry": (b"\x00\x00\x00\x00\x03abc", None, ()),
    "no schema id: 0000": (b"\x00\x00", None, ()),
    "characters together, the bound is 512": (UPSERT, None, [("ce_id", b"x" * 600)]),
    "header ce_id is not UTF-8": (UPSERT, None, [("ce_id", b"\xff")]),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_rejected_says_why(reason: str) -> None:
    value, key, headers = BAD[reason]
    with pytest.raises(NotIngestible) as caught:
        parsed(value, key, headers)
    assert reason in str(caught.value)


def test_a_rejected_record_still_names_its_collection() -> None:
    with pytest.raises(NotIngestible) as caught:
        parsed({"collection": "c", "id": -1})
    assert caught.value.collection == "c"


def test_a_registry_that_does_not_answer_rejects_nothing() -> None:
    with pytest.raises(Indefinite):
        parsed(b"\x00\x00\x00\x00\x09abc")


def test_without_a_registry_its_framing_is_rejected() -> None:
    with pytest.raises(NotIngestible, match="no schema registry is set"):
        change_of(entry(b"\x00\x00\x00\x00\x07abc"), SchemaRegistry())


@given(
    st.binary(max_size=60)
    | st.binary(max_size=40).map((b"\xc3\x01" + FINGERPRINT).__add__)
    | st.binary(max_size=40).map(b"\x00\x00\x00\x00\x07".__add__),
    st.none() | st.binary(max_size=8),
    st.lists(
        st.tuples(st.sampled_from(["vecraft-tier", "ce_id", "vecraft-collection", "__value_schema_id"]), st.binary(max_size=6))
    ),
)
def test_any_bytes_are_a_change_or_rejected(value: bytes, key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    """I6: any producer can write anything."""
    with contextlib.suppress(NotIngestible, Indefinite):
        assert isinstance(parsed(value, key, headers), Change)
