"""U2: records of others become points by the paths of a mapping, and the changes of a table by Debezium's envelope."""

from __future__ import annotations

import base64
import contextlib
import io
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ingest import FieldMapping, SourceConfig
from journal.ids import encode_id
from journal.log import Entry, Headers, Indefinite, TopicPartition
from journal.records import Delete, ReplacePayload, Upsert, VectorColumn
from journal.registry import SchemaRegistry, UnknownSchema, WriterSchema
from replayer.ingest.format import Change, NotIngestible
from replayer.ingest.mapping import mapped_change

ROW = {"sku": 7, "title": "chair", "embedding": [1, 2.5], "details": {"colors": ["red", "blue"], "size": {"w": 3}}}
PLAIN = FieldMapping(vector="embedding")
AVRO_ROW = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Row",
        "fields": [
            {"name": "sku", "type": "long"},
            {"name": "embedding", "type": {"type": "array", "items": "float"}},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        ],
    }
)


class Registry(SchemaRegistry):
    """Knows the schema 7, and does not answer for 9."""

    def __init__(self) -> None:
        super().__init__()

        def by_id(number: int) -> WriterSchema:
            if number == 9:
                raise Indefinite("no answer")
            if number != 7:
                raise UnknownSchema(f"schema {number} is not in the schema registry")
            return WriterSchema(AVRO_ROW)

        self.by_id = by_id  # type: ignore[assignment]


def change(value: object, key: object = b"7", mapping: FieldMapping = PLAIN, kind: Any = "json", headers: Headers = ()) -> Change:
    data, key_data = (each if isinstance(each, bytes) or each is None else orjson.dumps(each) for each in (value, key))
    entry = Entry(TopicPartition("shop", 0), 5, 0, key_data, data or b"", headers)
    return mapped_change(entry, SourceConfig("shop", "c", kind, mapping, tier=3), Registry())


def upsert(value: object, key: object = b"7", mapping: FieldMapping = PLAIN, kind: Any = "json") -> Upsert:
    operation = change(value, key, mapping, kind).operation
    assert isinstance(operation, Upsert)
    return operation


def vector(*numbers: float, name: str = "") -> VectorColumn:
    return VectorColumn.of(name, np.array([numbers], np.float32))


def test_a_record_by_its_key_with_all_fields_but_the_vectors() -> None:
    found = change(ROW)
    assert (found.collection, found.tier, found.key) == ("c", 3, "")
    assert found.operation == Upsert(
        [encode_id(7)], [vector(1, 2.5)], [orjson.dumps({k: ROW[k] for k in ("sku", "title", "details")})]
    )
    assert upsert({"embedding": [1, 2]}).payloads == [b""]


def test_paths_for_each_part() -> None:
    mapping = FieldMapping(
        "details.size.w",
        {"text": "embedding", "other": "missing"},
        {"name": "title", "color": "details.colors[0]", "all": "details.colors[]", "no": "x.y"},
    )
    found = upsert(ROW | {"missing": None}, b"any", mapping)
    assert found.ids == [encode_id(3)]
    assert found.vectors == [vector(1, 2.5, name="text")], "a vector that is null is none"
    assert orjson.loads(found.payloads[0]) == {"name": "chair", "color": "red", "all": ["red", "blue"]}


def test_an_empty_value_deletes() -> None:
    assert change(None, b"abc").operation == Delete([encode_id("abc")])
    assert change(None, {"sku": 7}, kind="debezium").operation == Delete([encode_id(7)])
    assert change({"schema": None, "payload": None}, {"sku": 7}, kind="debezium").operation == Delete([encode_id(7)])


@pytest.mark.parametrize(
    "given_vector", [[1, 2.5], "[1, 2.5]", " [1,2.5]", base64.b64encode(np.array([1, 2.5], "<f4").tobytes()).decode()]
)
def test_forms_of_a_vector(given_vector: object) -> None:
    """An array; as text, as databases print it; float32 in base64."""
    assert upsert(ROW | {"embedding": given_vector}).vectors == [vector(1, 2.5)]


def test_avro_with_a_schema_of_the_registry() -> None:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO_ROW, {"sku": 7, "embedding": [1, 2.5], "price": Decimal("9.50")})
    expected = Upsert([encode_id(7)], [vector(1, 2.5)], [b'{"sku":7,"price":9.5}'])
    assert change(b"\0\0\0\0\7" + stream.getvalue()).operation == expected
    assert change(stream.getvalue(), headers=[("__value_schema_id", b"\0\0\0\0\7")]).operation == expected
    with pytest.raises(Indefinite):
        change(b"\0\0\0\0\x09" + stream.getvalue())


# Debezium.


def event(op: str, **more: object) -> dict[str, object]:
    return {"before": None, "after": None, "source": {"table": "products"}, "op": op, "ts_ms": 1} | more


@pytest.mark.parametrize("op", ["c", "r", "u"])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_row_that_is_there_becomes_a_point(op: str, is_wrapped: bool) -> None:
    key: object = {"sku": 12}
    value: object = event(op, before={"sku": 12}, after=ROW)
    if is_wrapped:
        key, value = ({"schema": {"type": "struct"}, "payload": each} for each in (key, value))
    mapping = FieldMapping(vector="embedding", payload={"title": "title"})
    assert change(value, key, mapping, "debezium").operation == Upsert([encode_id(12)], [vector(1, 2.5)], [b'{"title":"chair"}'])


def test_a_row_that_is_deleted_deletes_its_point() -> None:
    assert change(event("d", before=ROW), {"sku": 7}, kind="debezium").operation == Delete([encode_id(7)])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ({"id": 5}, 5),
        ({"id": "5"}, "5"),
        ({"id": "550e8400-e29b-41d4-a716-446655440000"}, "550e8400-e29b-41d4-a716-446655440000"),
        ({"shop": 1, "sku": "a/b"}, '[1,"a/b"]'),
        ({"shop": "1", "sku": "a/b"}, '["1","a/b"]'),
    ],
)
def test_the_fields_of_the_key_are_the_id(key: object, expected: int | str) -> None:
    """Several are a JSON array, so that no two keys have one id."""
    assert change(event("d"), key, kind="debezium").operation == Delete([encode_id(expected)])


PLACEHOLDER = "__debezium_unavailable_value"


@pytest.mark.parametrize(
    "placeholder",
    [PLACEHOLDER, base64.b64encode(PLACEHOLDER.encode()).decode(), list(PLACEHOLDER.encode())],
    ids=["text", "bytes", "array"],
)
def test_a_large_vector_that_is_unchanged_stays(placeholder: object) -> None:
    """PostgreSQL does not log it, and Debezium sends a placeholder."""
    found = change(event("u", after={"title": "new", "embedding": placeholder}), {"sku": 7}, kind="debezium").operation
    assert found == ReplacePayload([encode_id(7)], b'{"title":"new"}')
    two = FieldMapping(vector={"a": "embedding", "b": "other"}, payload={})
    both = {"embedding": placeholder, "other": placeholder}
    assert change(event("u", after=both), {"sku": 7}, two, "debezium").operation == ReplacePayload([encode_id(7)], b"{}")
    with pytest.raises(NotIngestible, match="REPLICA IDENTITY FULL"):
        change(event("u", after=both | {"other": [1]}), {"sku": 7}, two, "debezium")
    with pytest.raises(NotIngestible, match="text is unchanged and not in the event"):
        change(event("u", after={"embedding": [1], "text": placeholder}), {"sku": 7}, kind="debezium")


BAD: dict[str, tuple[Any, ...]] = {
    "id: the record has nothing at 'sku', only embedding": ({"embedding": [1]}, b"k", FieldMapping("sku", "embedding")),
    "id must be an unsigned integer, a UUID or a string, not 1.5": (ROW | {"sku": 1.5}, b"k", FieldMapping("sku", "embedding")),
    "id is missing, and the record has no key": (ROW, None),
    "vector: the record has nothing at 'embedding', only a, b": ({"a": 1, "b": 2},),
    "vector 'x' is not an array of numbers": (ROW, b"k", FieldMapping("", {"x": "details"})),
    "vector is not an array of numbers": (ROW | {"embedding": [1, True]},),
    "vector is a text, and neither an array in JSON nor base64: 'one'": (ROW | {"embedding": "one"},),
    "vector has 0 bytes": (ROW | {"embedding": []},),
    "vector has 3 bytes": (ROW | {"embedding": "AAAA"},),
    "the value is not an object": ([1],),
    "neither Avro with a known schema nor JSON": (b"nothing",),
    "schema 3 is not in the schema registry": (b"\0\0\0\0\3abc",),
    "op is missing; rows without the envelope need a source of format json": (ROW, {"sku": 7}, PLAIN, "debezium"),
    "op 'u' needs the row in after": (event("u"), {"sku": 7}, PLAIN, "debezium"),
    "op 't' (truncate) is not supported": (event("t"), {"sku": 7}, PLAIN, "debezium"),
    'op "m" must be one of c, r, u, d': (event("m"), {"sku": 7}, PLAIN, "debezium"),
    "the table needs a primary key": (event("d"), None, PLAIN, "debezium"),
    "the record has no key with fields": (event("d"), b"7", PLAIN, "debezium"),
    "neither a whole number nor a text": (event("d"), {"a": 1, "b": None}, PLAIN, "debezium"),
    "id -1 is out of bounds": (event("d"), {"a": -1}, PLAIN, "debezium"),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_cannot_be_mapped_says_why(reason: str) -> None:
    """A3: in words for its producer."""
    with pytest.raises(NotIngestible) as caught:
        change(*BAD[reason])
    assert reason in str(caught.value)
    assert caught.value.collection == "c"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["embedding", "sku", "op", "after", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_envelopes = st.builds(lambda op, after: {"op": op, "after": after}, st.sampled_from("crudtm"), _json)


@given(
    st.binary(max_size=40) | (_json | _envelopes).map(orjson.dumps),
    st.none() | st.binary(max_size=8) | st.builds(lambda n: orjson.dumps({"sku": n}), st.integers(-9, 9)),
    st.sampled_from(["json", "debezium"]),
    st.lists(st.tuples(st.sampled_from(["__value_schema_id", "__key_schema_id"]), st.binary(max_size=6)), max_size=2),
)
def test_any_record_is_a_change_or_rejected(value: bytes, key: bytes | None, kind: str, headers: Headers) -> None:
    """I6: any producer can write anything."""
    with contextlib.suppress(NotIngestible, Indefinite):
        assert isinstance(change(value, key, PLAIN, kind, headers), Change)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "embedding"), st.integers(-9, 9) | st.text(max_size=8), max_size=5
    ),
    st.integers(0, 2**63 - 1) | st.text(min_size=1, max_size=20),
)
def test_what_a_row_holds_is_what_the_point_holds(numbers: list[float], fields: dict[str, Any], number: int | str) -> None:
    """Nothing is lost or added on the way, in either form."""
    row = fields | {"embedding": numbers}
    found = upsert(event("c", after=row), {"key": number}, PLAIN, "debezium")
    assert found.ids == [encode_id(number)]
    assert found.vectors[0].array().tolist() == [numbers]
    assert orjson.loads(found.payloads[0] or b"{}") == fields
    by_field = upsert(row | {"the id": number}, b"k", FieldMapping('"the id"', "embedding"))
    assert (by_field.ids, by_field.vectors) == (found.ids, found.vectors)
